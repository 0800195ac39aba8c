// Package network gives pods their network on one node: the host's settings, the CNI
// configuration with addresses kept per pod, and kube-proxy. Only agent imports it; it is one of
// the three packages that may import k8s.io/kubernetes.
package network
