// Command kedge-ipam is the CNI plugin that gives pods their addresses; see
// pkg/ipam. The container runtime starts it through the bridge plugin.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/kedge-io/kedge/pkg/ipam"
)

func main() {
	skel.PluginMainFuncs(ipam.Plugin(), version.All, "kedge-ipam keeps a pod's address for as long as the pod exists")
}
