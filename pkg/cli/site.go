package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"

	"github.com/kedge-io/kedge/pkg/agent"
	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/memory"
	"github.com/kedge-io/kedge/pkg/server"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// site prepares a server and, unless it is switched off, the node on the same machine, and returns
// their parts in start order: what the API needs, the API beside the container runtime, and then
// everything that talks to both.
func site(ctx context.Context, cfg config.Server, log *slog.Logger) ([]supervisor.Component, error) {
	memory.Start(memory.ServerStart)
	if err := completeAddresses(&cfg); err != nil {
		return nil, err
	}
	if err := ownAddresses(cfg.Agent); err != nil {
		return nil, err
	}
	s, err := server.New(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	cluster, err := clusterOf(cfg, s)
	if err != nil {
		return nil, err
	}
	api, err := s.APIServer(func() ([]byte, error) { return json.Marshal(cluster) })
	if err != nil {
		return nil, err
	}
	rest, err := s.Controllers()
	if err != nil {
		return nil, err
	}
	base, renew := []supervisor.Component{api}, []certs.Renewable{s.Certs()}
	if !cfg.DisableAgent {
		a, err := localAgent(ctx, cfg, s, cluster, log)
		if err != nil {
			return nil, err
		}
		runtime, err := a.Runtime()
		if err != nil {
			return nil, err
		}
		node, err := a.Node()
		if err != nil {
			return nil, err
		}
		if s.Several() {
			tunnels, err := a.Tunnels(s.OwnURL())
			if err != nil {
				return nil, err
			}
			node = append(node, tunnels...)
			s.WhenLed(a.ReclaimVolumes)
		}
		base, rest, renew = append(base, a.NodeAPI(), runtime), append(rest, node...), append(renew, a.Certs())
	}
	renewer, err := certs.NewRenewer(certs.RenewerConfig{DataDir: cfg.DataDir, Sets: renew, Log: log})
	if err != nil {
		return nil, err
	}
	parts := []supervisor.Component{supervisor.Group("base", base...), supervisor.Group("site", kubeletLast(rest)...), renewer, memory.New(memory.Config{Log: log})}
	if store := s.Datastore(); store != nil {
		parts = append([]supervisor.Component{store}, parts...)
	}
	return parts, nil
}

// kubeletLast lets the kubelet wait for the controllers of its own process: the attach-detach controller and the kubelet set the
// same variable of Kubernetes' CSI volume plugin, and only with the kubelet's value can the node become ready.
func kubeletLast(parts []supervisor.Component) []supervisor.Component {
	var chain, rest []supervisor.Component
	for _, p := range parts { // controllers come before the node's parts
		if p.Name() == "controller-manager" || p.Name() == "controllers" || p.Name() == "kubelet" {
			chain = append(chain, p)
		} else {
			rest = append(rest, p)
		}
	}
	return append([]supervisor.Component{supervisor.Sequence("controllers-kubelet", chain...)}, rest...)
}

// clusterOf is what nodes learn about the cluster.
func clusterOf(cfg config.Server, s *server.Server) (agent.Cluster, error) {
	serverCA, clientCA, err := s.Certs().CABundles()
	if err != nil {
		return agent.Cluster{}, err
	}
	gossipKey, err := s.GossipKey()
	if err != nil {
		return agent.Cluster{}, err
	}
	return agent.Cluster{
		ServerURL: s.URL(), ServerCA: serverCA, ClientCA: clientCA,
		ClusterCIDRs: cfg.ClusterCIDRs, ServiceIPs: serviceIPs(cfg.ServiceCIDRs), DNS: cfg.ClusterDNS, Domain: cfg.ClusterDomain,
		PodNetwork: cfg.FlannelBackend, PodNetworkOutside: cfg.FlannelExternalIP, NoProxy: cfg.DisableKubeProxy, NoPolicy: cfg.DisableNetworkPolicy, SystemRegistry: cfg.SystemDefaultRegistry, NoDNS: cfg.Disabled("coredns"),
		NoDevices: cfg.Disabled("devices"), NoRules: cfg.Disabled("rules"), NoGrid: cfg.Disabled("grid"),
		NoStorage: cfg.Disabled("local-storage"), StoragePaths: []string{cfg.DefaultLocalStoragePath},
		GossipKey: gossipKey,
	}, nil
}

// serviceIPs are the addresses of the Service kubernetes: the first of each range.
func serviceIPs(ranges []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, len(ranges))
	for i, p := range ranges {
		out[i] = p.Masked().Addr().Next()
	}
	return out
}

// localAgent prepares the node on the server's own machine; its certificates are signed without a network.
func localAgent(ctx context.Context, cfg config.Server, s *server.Server, cluster agent.Cluster, log *slog.Logger) (*agent.Agent, error) {
	signer, err := s.Certs().NodeSigner(certs.NodeIdentity{Name: cfg.NodeName, IPs: cfg.StdNodeIPs()})
	if err != nil {
		return nil, err
	}
	return agent.New(ctx, cfg.Agent, cluster, signer, log)
}

// completeAddresses fills in the addresses that are found by looking at this machine.
func completeAddresses(cfg *config.Server) error {
	if err := completeNode(&cfg.Agent); err != nil {
		return err
	}
	if err := readTokens(map[string]*string{cfg.TokenFile: &cfg.Token, cfg.AgentTokenFile: &cfg.AgentToken}); err != nil {
		return err
	}
	if !cfg.AdvertiseAddress.IsValid() {
		cfg.AdvertiseAddress = append(cfg.NodeExternalIPs, cfg.NodeIPs...)[0]
	}
	return nil
}
