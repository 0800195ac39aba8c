package network

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
)

// healthzPort is where kube-proxy's health is asked, on loopback.
const healthzPort = "127.0.0.1:10256"

// ProxyConfig is what kube-proxy needs to know about this node.
type ProxyConfig struct {
	NodeName     string
	NodeIP       netip.Addr
	Kubeconfig   string
	ClusterCIDRs []netip.Prefix
	// ExtraArgs are kube-proxy flags (flag=value) of the user; they win.
	ExtraArgs []string
}

// Proxy is kube-proxy in nftables mode as a component. It runs the program nft of the PATH.
type Proxy struct {
	options *proxyapp.Options
	client  *http.Client
}

// NewProxy parses and checks the arguments of kube-proxy; it starts nothing.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	o := proxyapp.NewOptions()
	set := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	o.AddFlags(set)
	if err := set.Parse(proxyArgs(cfg)); err != nil {
		return nil, fmt.Errorf("parse kube-proxy arguments: %w", err)
	}
	if err := o.Complete(set); err != nil {
		return nil, fmt.Errorf("complete kube-proxy options: %w", err)
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("check kube-proxy options: %w", err)
	}
	return &Proxy{options: o, client: &http.Client{Timeout: 3 * time.Second}}, nil
}

// proxyArgs is the command line of kube-proxy for c; user arguments come last and win.
func proxyArgs(c ProxyConfig) []string {
	cidrs := make([]string, len(c.ClusterCIDRs))
	for i, p := range c.ClusterCIDRs {
		cidrs[i] = p.String()
	}
	args := []string{
		"--bind-address=" + c.NodeIP.String(),
		"--cluster-cidr=" + strings.Join(cidrs, ","),
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--conntrack-tcp-timeout-established=0s",
		"--healthz-bind-address=" + healthzPort,
		"--hostname-override=" + c.NodeName,
		"--kubeconfig=" + c.Kubeconfig,
		"--metrics-bind-address=127.0.0.1:10249",
		"--proxy-mode=nftables",
	}
	for _, a := range c.ExtraArgs {
		args = append(args, "--"+strings.TrimLeft(a, "-"))
	}
	return args
}

// Name implements supervisor.Component.
func (*Proxy) Name() string { return "kube-proxy" }

// Run implements supervisor.Component. The rules stay when it ends, so that Services go on.
// Upstream's Run does not come back from a stop, so it is left behind in its own goroutine.
func (p *Proxy) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- p.options.Run(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run: %w", err)
	}
}

// Ready implements supervisor.Component: the rules have been written at least once.
func (p *Proxy) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+healthzPort+"/livez", nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask kube-proxy: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("ask kube-proxy: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("kube-proxy says %s: %s", resp.Status, body)
	}
	return nil
}
