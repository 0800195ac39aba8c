// Package agent builds what runs on every node, a server's own node included: containerd, kubelet,
// kube-proxy, the pod network and DNS. Only cli imports it.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy"
	"github.com/kedge-io/kedge/pkg/autonomy/health/gossip"
	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/cri"
	"github.com/kedge-io/kedge/pkg/dns"
	"github.com/kedge-io/kedge/pkg/grid"
	"github.com/kedge-io/kedge/pkg/kubelet"
	"github.com/kedge-io/kedge/pkg/network"
	"github.com/kedge-io/kedge/pkg/payload"
	"github.com/kedge-io/kedge/pkg/storage"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/upstream"
)

// Cluster is what all nodes of a cluster share and a node learns from its server.
type Cluster struct {
	// ServerURL is where this node's parts reach the API.
	ServerURL string
	// ServerCA and ClientCA are PEM bundles.
	ServerCA, ClientCA []byte
	ClusterCIDRs       []netip.Prefix
	DNS                []netip.Addr
	// ServiceIPs are the addresses of the Service kubernetes.
	ServiceIPs []netip.Addr
	Domain     string
	// PodNetwork is a backend of the pod network, bridge or none.
	PodNetwork string
	// PodNetworkOutside has nodes send to each other's external addresses.
	PodNetworkOutside bool
	// NoProxy leaves Services to a network plugin of the user.
	NoProxy bool
	// SystemRegistry is where images of the system come from whose name has no registry; it may be empty.
	SystemRegistry string
	// NoPolicy leaves NetworkPolicies to a network plugin of the user.
	NoPolicy bool
	// NoDNS leaves names to a DNS server of the user.
	NoDNS bool
	// NoStorage leaves volumes to a provisioner of the user; StoragePaths are where ours may make them.
	NoStorage    bool
	StoragePaths []string
	// NoDevices leaves devices to others.
	NoDevices bool
	// NoRules leaves messages between programs on nodes and others to others.
	NoRules bool
	// NoGrid leaves the traffic of Services to all endpoints, whatever their annotations say.
	NoGrid bool
	// GossipKey is the secret that nodes know their neighbours by; empty where they shall not gossip.
	GossipKey []byte `json:",omitempty"`

	alone bool // this is what was said the last time: no server answered
}

// Agent is one node, prepared and not started.
type Agent struct {
	cfg     config.Agent
	cluster Cluster
	paths   paths
	payload *payload.Payload
	certs   *certs.Node
	api     *autonomy.NodeAPI
	traffic *grid.View
	link    *link            // of a node that joined over the network; nil on a server's own
	node    *kubelet.Kubelet // from Node on
	// balancer leads to the servers, on a node that joined over the network, from Upstream on.
	balancer atomic.Pointer[upstream.Balancer]
	log      *slog.Logger
}

// New unpacks the bundled programs, sets up the host and has this node's certificates signed.
func New(ctx context.Context, cfg config.Agent, cluster Cluster, signer certs.Signer, log *slog.Logger) (*Agent, error) {
	a := &Agent{cfg: cfg, cluster: cluster, paths: newPaths(cfg.DataDir), log: log}
	var err error
	if a.payload, err = payload.Ensure(payload.Config{DataDir: cfg.DataDir, PreferHostBin: cfg.PreferHostBin, Log: log}); err != nil {
		return nil, fmt.Errorf("unpack bundled programs: %w", err)
	}
	// kube-proxy and the CNI plugins look for nft in the PATH.
	if err := os.Setenv("PATH", a.payload.SearchPath(os.Getenv("PATH"))); err != nil {
		return nil, fmt.Errorf("set PATH: %w", err)
	}
	if err := network.PrepareHost(log, hasIPv6(cluster.ClusterCIDRs)); err != nil {
		return nil, fmt.Errorf("prepare host: %w", err)
	}
	apiCA, err := autonomy.Authority(cfg.DataDir, cfg.NodeName)
	if err != nil {
		return nil, err
	}
	a.certs, err = certs.EnsureNode(ctx, certs.NodeConfig{
		DataDir: cfg.DataDir, NodeName: cfg.NodeName, NodeIPs: cfg.StdNodeIPs(), ServerURL: autonomy.URL(), APICA: apiCA,
		ServerCA: cluster.ServerCA, ClientCA: cluster.ClientCA, Signer: signer,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare node certificates: %w", err)
	}
	if err = a.openTraffic(); err != nil {
		return nil, fmt.Errorf("prepare grid traffic: %w", err)
	}
	if a.api, err = a.nodeAPI(); err != nil {
		return nil, fmt.Errorf("prepare node API: %w", err)
	}
	return a, nil
}

// Certs are this node's certificates, for renewal.
func (a *Agent) Certs() *certs.Node { return a.certs }

// Runtime is what does not need the API: it may start beside the control plane. The images of
// archives are there before the first pod asks for one.
func (a *Agent) Runtime() (supervisor.Component, error) {
	ref, archive := a.payload.PauseImage()
	runc, err := a.payload.Path("runc")
	if err != nil {
		return nil, err
	}
	shim, err := a.payload.Path("containerd-shim-runc-v2")
	if err != nil {
		return nil, err
	}
	if a.cfg.PauseImage != "" {
		ref, archive = systemImage(a.cluster.SystemRegistry, a.cfg.PauseImage), ""
	}
	containerd, err := cri.New(cri.Config{
		Root: a.paths.containerd, State: containerdState, Socket: ContainerdSocket, ConfigFile: a.paths.containerdConfig,
		Runc: runc, Shim: shim, CNIBinDir: a.payload.BinDir(), CNIConfDir: a.paths.cniConf,
		PauseImage: ref, PauseArchive: archive, RegistryDir: a.paths.registries, RegistriesFile: a.cfg.PrivateRegistry,
		SearchPath:  os.Getenv("PATH"),
		Snapshotter: a.cfg.Snapshotter, SystemdCgroup: kubelet.SystemdCgroup(), RestrictOOMScoreAdj: !cri.CanLowerOOMScore(),
	}, a.log)
	if err != nil {
		return nil, err
	}
	images, err := cri.NewArchives(cri.ArchivesConfig{
		Dir: a.paths.images, CacheFile: a.paths.imagesCache, Socket: ContainerdSocket, Snapshotter: a.cfg.Snapshotter,
	}, a.log)
	if err != nil {
		return nil, err
	}
	return supervisor.Sequence("runtime", containerd, images), nil
}

// Node is what makes this machine a node, in start order; its parts may start together.
func (a *Agent) Node() ([]supervisor.Component, error) {
	makers := []func() (supervisor.Component, error){a.kubelet, a.externalAddress, a.podNetwork, a.policy, a.gridTraffic, a.proxy, a.dns, a.storage, a.neighbours, a.devices}
	var parts []supervisor.Component
	if a.cfg.NodeIPFound {
		parts = append(parts, network.NewAddress(a.cfg.NodeIPs[0]))
	}
	for _, part := range makers {
		c, err := part()
		if err != nil {
			return nil, err
		}
		if c != nil {
			parts = append(parts, c)
		}
	}
	return parts, nil
}

func (a *Agent) kubelet() (supervisor.Component, error) {
	labels, err := parseLabels(a.cfg.NodeLabels)
	if err != nil {
		return nil, err
	}
	resolv, err := a.podResolvConf()
	if err != nil {
		return nil, err
	}
	// A lease renewed by the kubelet is only a safety net: on a server's own node nothing else is in the way, and the others speak
	// up through the tunnel.
	heartbeat, report := 30*time.Second, time.Duration(0)
	if a.link != nil {
		heartbeat, report = 15*time.Minute, 30*time.Minute
	}
	a.node, err = kubelet.New(kubelet.Config{
		NodeName: a.cfg.NodeName, NodeIPs: a.cfg.NodeIPs,
		Kubeconfig: a.certs.KubeletKubeconfig, ClientCA: a.api.KubeletClientCA(),
		ServingCert: a.certs.ServingKubelet.Cert, ServingKey: a.certs.ServingKubelet.Key,
		CRISocket: ContainerdSocket, RootDir: a.paths.kubelet, StaticPodDir: a.paths.staticPods, PluginDir: a.paths.volumePlugins,
		ClusterDNS: a.cluster.DNS, ClusterDomain: a.cluster.Domain, ResolvConf: resolv, SystemdCgroup: kubelet.SystemdCgroup(),
		Labels: labels, Taints: a.cfg.NodeTaints, Heartbeat: heartbeat, Report: report, ExternalAddresses: len(a.cfg.NodeExternalIPs) > 0, ExtraArgs: a.cfg.KubeletArgs,
	})
	return a.node, err
}

func (a *Agent) podNetwork() (supervisor.Component, error) {
	if a.cluster.PodNetwork == "none" {
		return nil, nil
	}
	nft, err := a.payload.Path("nft")
	if err != nil {
		return nil, err
	}
	var public []netip.Addr
	if a.cluster.PodNetworkOutside {
		public = a.cfg.NodeExternalIPs
	}
	return network.NewPods(network.PodConfig{
		PublicIPs: public,
		NodeName:  a.cfg.NodeName, Kubeconfig: a.certs.KubeletKubeconfig, ControllerKubeconfig: a.certs.ControllerKubeconfig,
		ClusterCIDRs: a.cluster.ClusterCIDRs, Backend: a.cluster.PodNetwork, NodeIPs: a.cfg.NodeIPs, Interface: a.cfg.FlannelIface,
		CNIConfDir: a.paths.cniConf, IPAMDir: a.paths.ipam, StateDir: a.paths.network, PodsDir: filepath.Join(a.paths.kubelet, "pods"), Nft: nft,
	}, a.log)
}

func (a *Agent) proxy() (supervisor.Component, error) {
	if a.cluster.NoProxy {
		return nil, nil
	}
	return network.NewProxy(network.ProxyConfig{
		NodeName: a.cfg.NodeName, NodeIP: a.cfg.NodeIPs[0], Kubeconfig: a.certs.KubeProxyKubeconfig,
		ClusterCIDRs: a.cluster.ClusterCIDRs, ExtraArgs: a.cfg.KubeProxyArgs,
	})
}

func (a *Agent) dns() (supervisor.Component, error) {
	if a.cluster.NoDNS {
		return nil, nil
	}
	return dns.New(dns.Config{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName, ClusterDomain: a.cluster.Domain,
		Listen: a.cluster.DNS, ResolvConf: a.resolvConf(), Log: a.log,
	})
}

func (a *Agent) storage() (supervisor.Component, error) {
	if a.cluster.NoStorage {
		return nil, nil
	}
	return storage.NewNode(storage.NodeConfig{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName, Paths: a.cluster.StoragePaths, Log: a.log,
	})
}

// neighbours keeps in touch with the nodes beside this one.
func (a *Agent) neighbours() (supervisor.Component, error) {
	if len(a.cluster.GossipKey) == 0 {
		return nil, nil
	}
	return gossip.New(gossip.Config{
		Kubeconfig: a.certs.KubeletKubeconfig, NodeName: a.cfg.NodeName, Address: a.cfg.NodeIPs[0], Key: a.cluster.GossipKey,
		StateFile: a.paths.neighbourhood, Log: a.log,
	})
}

// NodeAddress finds the address that a node without --node-ip is known by, or takes that of its last start.
func NodeAddress(dataDir string) (netip.Addr, error) {
	return network.NodeAddress(filepath.Join(dataDir, "agent", "node-ip"))
}
