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
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// PodConfig is what the pod network of one node needs to know.
type PodConfig struct {
	NodeName     string
	Kubeconfig   string
	ClusterCIDRs []netip.Prefix
	// CNIConfDir is watched by containerd; IPAMDir keeps the addresses of pods.
	CNIConfDir, IPAMDir string
	// Nft is the path of the program that loads nftables rules.
	Nft string
	// PodsDir is the kubelet's directory of existing pods: when addresses run out, those of pods that
	// are not there are given away.
	PodsDir string
}

// Pods is the pod network of this node as a component: it waits for the addresses that the
// controller manager gives this node and configures CNI with them.
type Pods struct {
	cfg   PodConfig
	log   *slog.Logger
	ready atomic.Bool
}

// NewPods checks cfg; it starts nothing. A configuration of an earlier run is kept, so a node that
// starts without its server has a pod network at once.
func NewPods(cfg PodConfig, log *slog.Logger) (*Pods, error) {
	for _, dir := range []string{cfg.CNIConfDir, cfg.IPAMDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make pod network directory: %w", err)
		}
	}
	return &Pods{cfg: cfg, log: log}, nil
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

// Run implements supervisor.Component. Bridge, rules and addresses stay when it ends, because the pods do.
func (p *Pods) Run(ctx context.Context) error {
	if err := p.loadMasquerade(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(p.conflistPath()); err == nil {
		p.ready.Store(true)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", p.cfg.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	cidrs, err := p.awaitPodCIDRs(ctx, client)
	if err != nil || ctx.Err() != nil {
		return ignoreStop(ctx, err)
	}
	if err := p.writeConflist(cidrs); err != nil {
		return err
	}
	p.ready.Store(true)
	<-ctx.Done()
	return nil
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

// awaitPodCIDRs watches this node until the controller manager has given it addresses for pods.
func (p *Pods) awaitPodCIDRs(ctx context.Context, client kubernetes.Interface) ([]netip.Prefix, error) {
	self := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", p.cfg.NodeName).String()}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if cidrs, err := p.watchPodCIDRs(ctx, client, self); err != nil || len(cidrs) > 0 {
			return cidrs, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// watchPodCIDRs is one watch; it returns nothing when the watch ends or cannot be had.
func (p *Pods) watchPodCIDRs(ctx context.Context, client kubernetes.Interface, self metav1.ListOptions) ([]netip.Prefix, error) {
	w, err := client.CoreV1().Nodes().Watch(ctx, self)
	if err != nil {
		p.log.Debug("watch node", "error", err)
		return nil, nil
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		node, ok := event.Object.(*corev1.Node)
		if !ok || len(node.Spec.PodCIDRs) == 0 {
			continue
		}
		return parsePrefixes(node.Spec.PodCIDRs)
	}
	return nil, nil
}

func parsePrefixes(in []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(in))
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("node's pod addresses: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// writeConflist writes the CNI configuration when it differs. A rename inside the directory makes it
// appear whole and is what containerd's watcher reacts to: it ignores files that are merely created, and would complain of
// one that is written under another name.
func (p *Pods) writeConflist(cidrs []netip.Prefix) error {
	want, err := conflist(cidrs, p.cfg.IPAMDir, p.cfg.PodsDir)
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
