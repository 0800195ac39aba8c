// Package compile turns NetworkPolicies, pods and namespaces into the nftables table of one node. It is pure: values in, a value
// out. It is an inner room of pkg/network/policy.
package compile

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
)

// Pod is what policies need to know about a pod.
type Pod struct {
	Namespace, Name string
	// UIDs are those under which the pod is known: of the API, and for a static pod also that of the kubelet.
	UIDs   []string
	Labels map[string]string
	// Node is where it runs.
	Node string
	// IPs is empty as long as the API does not know them. Pods in the network of their host have none of their own and do not belong
	// here, and neither do pods that have ended.
	IPs   []netip.Addr
	Ports []Port
}

// Port is a named port of a container.
type Port struct {
	Name string
	// Protocol is TCP, UDP or SCTP.
	Protocol string
	Number   int32
}

// Reservation is an address that this node has given to a pod, or to a container without one (all names empty).
type Reservation struct {
	Namespace, Name, UID string
	IPs                  []netip.Addr
}

// Input is everything a node's rules depend on.
type Input struct {
	// Node is the name of the node whose pods are protected.
	Node string
	// Pods are those of all nodes.
	Pods []Pod
	// Reservations are the node's own addresses. They are known before the pod runs, and before the API knows them.
	Reservations []Reservation
	// Namespaces are the labels of each.
	Namespaces map[string]map[string]string
	Policies   []*networkingv1.NetworkPolicy
	// DNS are the addresses at which every node answers for the Service kube-dns. Policies see a pod there with the labels that such
	// pods have elsewhere.
	DNS []netip.Addr
	// Bridge is the interface that all pods of the node hang on. When it is given, addresses on it that are neither reserved nor of a
	// known pod are cut off.
	Bridge string
}

// dnsPod stands for the DNS server of the node.
func dnsPod(addrs []netip.Addr) Pod {
	return Pod{
		Namespace: "kube-system", Name: "kube-dns", Labels: map[string]string{"k8s-app": "kube-dns"}, IPs: addrs,
		Ports: []Port{{"dns", "UDP", 53}, {"dns-tcp", "TCP", 53}},
	}
}
