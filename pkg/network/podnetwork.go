package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kedge-io/kedge/pkg/network/overlay"
	"github.com/kedge-io/kedge/pkg/peers"
)

// PodConfig is what the pod network of one node needs to know.
type PodConfig struct {
	NodeName string
	// Kubeconfig is the kubelet's, which may change this Node; ControllerKubeconfig may read about the others.
	Kubeconfig, ControllerKubeconfig string
	ClusterCIDRs                     []netip.Prefix
	// Backend joins the pods of several nodes: vxlan, host-gw, wireguard-native, or bridge for none.
	Backend string
	// NodeIPs are this node's addresses, PublicIPs those that other nodes send to where these are others.
	NodeIPs, PublicIPs []netip.Addr
	// Interface leads to the other nodes; empty means the one with the node's address.
	Interface string
	// CNIConfDir is watched by containerd; IPAMDir keeps the addresses of pods, StateDir what is known about other nodes.
	CNIConfDir, IPAMDir, StateDir string
	// Nft is the path of the program that loads nftables rules.
	Nft string
	// PodsDir is the kubelet's directory of existing pods: when addresses run out, those of pods that
	// are not there are given away.
	PodsDir string
}

// Pods is the pod network of this node as a component: it waits for the addresses that the controller manager gives this
// node, configures CNI with them, and joins the pods with those of other nodes.
type Pods struct {
	cfg     PodConfig
	log     *slog.Logger
	overlay *overlay.Overlay // nil when pods talk inside this node only
	ready   atomic.Bool
}

// NewPods checks cfg; it starts nothing. A configuration of an earlier run is kept, so a node that
// starts without its server has a pod network at once.
func NewPods(cfg PodConfig, log *slog.Logger) (*Pods, error) {
	for _, dir := range []string{cfg.CNIConfDir, cfg.IPAMDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make pod network directory: %w", err)
		}
	}
	p := &Pods{cfg: cfg, log: log}
	if cfg.Backend == "bridge" {
		return p, nil
	}
	names := map[string]string{"vxlan": peers.VXLAN, "host-gw": peers.HostGW, "wireguard-native": peers.WireGuard}
	var err error
	p.overlay, err = overlay.New(overlay.Config{
		NodeName: cfg.NodeName, Backend: names[cfg.Backend], ClusterCIDRs: cfg.ClusterCIDRs,
		NodeIPs: cfg.NodeIPs, PublicIPs: cfg.PublicIPs, Interface: cfg.Interface, Dir: cfg.StateDir, Log: log,
	})
	return p, err
}

// Name implements supervisor.Component.
func (*Pods) Name() string { return "pod-network" }

// Ready implements supervisor.Component: CNI is configured.
func (p *Pods) Ready(context.Context) error {
	if p.ready.Load() {
		return nil
	}
	return errors.New("waiting for the node's pod addresses")
}

// Tell implements supervisor.Teller.
func (p *Pods) Tell() string {
	if p.overlay == nil {
		return "pods talk inside this node only"
	}
	return p.overlay.Note()
}

// Run implements supervisor.Component. Bridge, rules, routes and addresses stay when it ends, because the pods do.
func (p *Pods) Run(ctx context.Context) error {
	if err := p.loadMasquerade(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(p.conflistPath()); err == nil {
		p.ready.Store(true)
	}
	client, _, err := newClient(p.cfg.Kubeconfig)
	if err != nil {
		return err
	}
	if p.overlay == nil {
		node, err := p.awaitNode(ctx, client)
		if err != nil || ctx.Err() != nil {
			return ignoreStop(ctx, err)
		}
		if _, err := p.configure(node); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	return p.join(ctx, client)
}

// join is Run with an overlay.
func (p *Pods) join(ctx context.Context, client kubernetes.Interface) error {
	_, directory, err := newClient(p.cfg.ControllerKubeconfig)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop(nil)
	parts.Go(func() { p.overlay.Run(ctx) })
	parts.Go(func() { p.follow(ctx, directory) })
	parts.Go(func() {
		if err := p.announce(ctx, client); err != nil {
			stop(err)
		}
	})
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func newClient(kubeconfig string) (*kubernetes.Clientset, rest.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	cfg = rest.AddUserAgent(cfg, "kedge-pod-network")
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	return client, client.CoreV1().RESTClient(), nil
}

func (p *Pods) conflistPath() string { return filepath.Join(p.cfg.CNIConfDir, conflistName) }

// loadMasquerade puts the rules for traffic that leaves the cluster in place.
func (p *Pods) loadMasquerade(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.cfg.Nft, "-f", "-")
	cmd.Stdin = strings.NewReader(masqueradeRules(p.cfg.ClusterCIDRs))
	if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("load masquerade rules: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// mtu is the longest packet of a pod, or 0 for that of the bridge.
func (p *Pods) mtu() int {
	if p.overlay == nil {
		return 0
	}
	return p.overlay.MTU()
}

// writeConflist writes the CNI configuration when it differs. A rename inside the directory makes it
// appear whole and is what containerd's watcher reacts to: it ignores files that are merely created, and would complain of
// one that is written under another name.
func (p *Pods) writeConflist(cidrs []netip.Prefix) error {
	want, err := conflist(cidrs, p.mtu(), p.cfg.IPAMDir, p.cfg.PodsDir)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(p.conflistPath()); err == nil && bytes.Equal(have, want) {
		return nil
	}
	outside, inside := filepath.Join(p.cfg.IPAMDir, conflistName+".new"), filepath.Join(p.cfg.CNIConfDir, conflistName+".new")
	if err := os.WriteFile(outside, want, 0o600); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	if err := errors.Join(os.Rename(outside, inside), os.Rename(inside, p.conflistPath())); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	return nil
}

// ignoreStop drops an error that only says that we were told to stop.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
