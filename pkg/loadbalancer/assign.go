package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Labels of nodes and Services that say which nodes carry which Services. They are those of k3s, so that its users'
// nodes and Services keep their meaning.
const (
	enableLabel  = "svccontroller.k3s.cattle.io/enablelb"
	poolLabel    = "svccontroller.k3s.cattle.io/lbpool"
	excludeLabel = "node.kubernetes.io/exclude-from-external-load-balancers"
)

// world is everything an assignment is made from.
type world struct {
	services []*corev1.Service
	nodes    []*corev1.Node
	slices   []*discoveryv1.EndpointSlice
	reserved []int32 // ports that no Service may take over on a node
}

// assignment is the outcome for one Service.
type assignment struct {
	addresses []string // sorted
	keep      bool     // leave the published addresses as they are
	problem   string   // why there are none, and what to change; empty when all is well
}

// port is one port on all nodes.
type port struct {
	number   int32
	protocol corev1.Protocol
}

// assign decides for every Service of ours which addresses it is published at. A port belongs to the oldest Service
// that asks for it: two Services at one address and port would contradict each other in every node's packet rules.
func assign(w world) map[string]assignment {
	out := map[string]assignment{}
	taken := map[port]string{}
	nodes := eligibleNodes(w.nodes)
	for _, s := range oldestFirst(w.services) {
		key := s.Namespace + "/" + s.Name
		if problem := claimPorts(s, key, w.reserved, taken); problem != "" {
			out[key] = assignment{problem: problem}
			continue
		}
		out[key] = addressesFor(s, nodes, w.slices)
	}
	return out
}

// mine says whether a Service is served by this package.
func mine(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil &&
		(s.Spec.LoadBalancerClass == nil || *s.Spec.LoadBalancerClass == Class)
}

func oldestFirst(services []*corev1.Service) []*corev1.Service {
	var out []*corev1.Service
	for _, s := range services {
		if mine(s) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// claimPorts takes the ports of a Service, all or none, and says why not.
func claimPorts(s *corev1.Service, key string, reserved []int32, taken map[port]string) string {
	for _, p := range s.Spec.Ports {
		if slices.Contains(reserved, p.Port) {
			return fmt.Sprintf("port %d is used by the node itself: choose another spec.ports[].port", p.Port)
		}
		if other, ok := taken[port{p.Port, p.Protocol}]; ok {
			return fmt.Sprintf("port %d/%s is taken by Service %s: choose another spec.ports[].port", p.Port, p.Protocol, other)
		}
	}
	for _, p := range s.Spec.Ports {
		taken[port{p.Port, p.Protocol}] = key
	}
	return ""
}

// eligible are the nodes that carry Services, and which of them are ready.
type eligible struct {
	all, ready []*corev1.Node
}

// eligibleNodes leaves out nodes that are excluded or going. Once a node has the enabling label, only nodes with it count.
func eligibleNodes(nodes []*corev1.Node) eligible {
	chosen := slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return n.Labels[enableLabel] == "true" })
	var e eligible
	for _, n := range nodes {
		_, excluded := n.Labels[excludeLabel]
		if excluded || n.DeletionTimestamp != nil || chosen && n.Labels[enableLabel] != "true" {
			continue
		}
		e.all = append(e.all, n)
		if isReady(n) {
			e.ready = append(e.ready, n)
		}
	}
	return e
}

func isReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// addressesFor returns the addresses of the ready nodes that can carry a Service. When nodes exist and none is ready, the
// published addresses stay: the nodes go on working while the server does not hear them.
func addressesFor(s *corev1.Service, nodes eligible, all []*discoveryv1.EndpointSlice) assignment {
	inPool := func(list []*corev1.Node) []*corev1.Node {
		pool := s.Labels[poolLabel]
		return slices.DeleteFunc(slices.Clone(list), func(n *corev1.Node) bool { return pool != "" && n.Labels[poolLabel] != pool })
	}
	candidates, ready := inPool(nodes.all), inPool(nodes.ready)
	if len(candidates) == 0 {
		return assignment{problem: "no node carries this Service: check the labels " + enableLabel + ", " + poolLabel + " and " + excludeLabel}
	}
	if len(ready) == 0 {
		return assignment{keep: true}
	}
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		with := nodesWithEndpoints(s, all)
		ready = slices.DeleteFunc(ready, func(n *corev1.Node) bool { return !with[n.Name] })
	}
	var out []string
	for _, n := range ready {
		for _, family := range s.Spec.IPFamilies {
			if a := nodeAddress(n, family); a != "" {
				out = append(out, a)
			}
		}
	}
	slices.Sort(out)
	return assignment{addresses: slices.Compact(out)}
}

// nodesWithEndpoints returns the nodes on which a Service has a ready endpoint.
func nodesWithEndpoints(s *corev1.Service, all []*discoveryv1.EndpointSlice) map[string]bool {
	out := map[string]bool{}
	for _, slice := range all {
		if slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				out[*e.NodeName] = true
			}
		}
	}
	return out
}

// nodeAddress returns the node's address of a family: the external one if it has one, else the internal one.
func nodeAddress(n *corev1.Node, family corev1.IPFamily) string {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeExternalIP, corev1.NodeInternalIP} {
		for _, a := range n.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err == nil && a.Type == kind && ip.Is4() == (family == corev1.IPv4Protocol) {
				return ip.String()
			}
		}
	}
	return ""
}

// published returns the addresses in a Service's status, sorted.
func published(s *corev1.Service) []string {
	var out []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		out = append(out, i.IP)
	}
	slices.Sort(out)
	return out
}

// ingress turns addresses into a Service status.
func ingress(addresses []string) []corev1.LoadBalancerIngress {
	out := make([]corev1.LoadBalancerIngress, 0, len(addresses))
	for _, a := range addresses {
		out = append(out, corev1.LoadBalancerIngress{IP: a})
	}
	return out
}

// describe lists addresses for an Event.
func describe(addresses []string) string {
	if len(addresses) == 0 {
		return "no node"
	}
	return strings.Join(addresses, ", ")
}
