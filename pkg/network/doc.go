// Package network gives pods their network on one node: the host's settings, the CNI
// configuration with addresses kept per pod, and kube-proxy. Only agent imports it; it is one of
// the three packages that may import k8s.io/kubernetes.
package network

// What others need to know about the pod network.
const (
	// Bridge is the interface that the pods of a node hang on.
	Bridge = bridgeName
	// Name is the name of the network in CNI, under which the store of its addresses lies.
	Name = "kedge"
)
