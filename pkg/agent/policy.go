package agent

import (
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/ipam"
	"github.com/kedge-io/kedge/pkg/network"
	"github.com/kedge-io/kedge/pkg/network/policy"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// policy enforces NetworkPolicies. Where a user's plugin makes the pod network, only addresses that the API knows can be guarded.
func (a *Agent) policy() (supervisor.Component, error) {
	nft, err := a.payload.Path("nft")
	if err != nil {
		return nil, err
	}
	cfg := policy.Config{
		NodeName: a.cfg.NodeName, Kubeconfig: a.certs.ControllerKubeconfig, Nft: nft, Off: a.cluster.NoPolicy,
		File: filepath.Join(a.cfg.DataDir, "agent", "network-policy.nft"), Log: a.log,
	}
	if !a.cluster.NoDNS {
		cfg.DNS = a.cluster.DNS
	}
	if a.cluster.PodNetwork != "none" {
		cfg.Bridge, cfg.ReservedDir = network.Bridge, ipam.StoreDir(a.paths.ipam, network.Name)
	}
	return policy.New(cfg)
}
