// Package kubelet runs the kubelet in this process. Only agent imports it; it is one of the
// three packages that may import k8s.io/kubernetes.
package kubelet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
)

// Kubelet is the kubelet as a component.
type Kubelet struct {
	server *options.KubeletServer
	client *http.Client
	csi    *csiHost
}

// New checks cfg and makes the kubelet's directories; it starts nothing.
func New(cfg Config) (*Kubelet, error) {
	s, err := server(cfg)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.RootDir, cfg.StaticPodDir, cfg.PluginDir} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, fmt.Errorf("make kubelet directory: %w", err)
		}
	}
	return &Kubelet{server: s, client: &http.Client{Timeout: 3 * time.Second}, csi: &csiHost{}}, nil
}

// Name implements supervisor.Component.
func (*Kubelet) Name() string { return "kubelet" }

// Run implements supervisor.Component. Pods go on when it ends.
func (k *Kubelet) Run(ctx context.Context) error {
	deps, err := kubeletapp.UnsecuredDependencies(ctx, k.server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("make dependencies: %w", err)
	}
	deps.VolumePlugins = k.csi.watch(deps.VolumePlugins)
	if err := kubeletapp.Run(ctx, k.server, deps, utilfeature.DefaultFeatureGate); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// ReclaimVolumes makes the CSI volume plugin the kubelet's again, after controllers of the same process have been made: both set the same
// variable of Kubernetes, and with that of the controllers no driver can register on this node.
func (k *Kubelet) ReclaimVolumes() error { return k.csi.reclaim() }

// Ready implements supervisor.Component: the kubelet's own health endpoint answers ok.
func (k *Kubelet) Ready(ctx context.Context) error {
	url := fmt.Sprintf("http://%s:%d/healthz", k.server.HealthzBindAddress, k.server.HealthzPort)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask kubelet: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("ask kubelet: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("kubelet says %s: %s", resp.Status, body)
	}
	return nil
}
