package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/tunnel"
	"github.com/kedge-io/kedge/pkg/upstream"
)

const (
	// balancerAddress is where this node's parts find a server.
	balancerAddress = "127.0.0.1:6444"
	balancerURL     = "https://" + balancerAddress
	// kubeletAddress is where the tunnel finds the kubelet.
	kubeletAddress = "127.0.0.1:10250"
)

// link is a joined node's way to its servers.
type link struct {
	servers *upstream.List
	client  *join.Client
}

// Join learns about the cluster from a server, or, when that cannot be reached, from what it said the last time, and prepares
// the node. It waits for a first answer as long as it takes; its errors are for the operator.
func Join(ctx context.Context, cfg config.Agent, log *slog.Logger) (*Agent, error) {
	if err := quietClients(); err != nil {
		return nil, fmt.Errorf("prepare clients: %w", err)
	}
	servers, err := upstream.OpenList(filepath.Join(cfg.DataDir, "agent", "servers.json"), cfg.Servers)
	if err != nil {
		return nil, err
	}
	client, err := join.NewClient(join.ClientConfig{
		DataDir: cfg.DataDir, Servers: servers.All, Token: cfg.Token, NodeName: cfg.NodeName, NodeIPs: cfg.StdNodeIPs(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	settings, err := client.Settings(ctx)
	if err != nil {
		return nil, err
	}
	var cluster Cluster
	if err := json.Unmarshal(settings, &cluster); err != nil {
		return nil, fmt.Errorf("understand the server's settings: %w: the server and this agent must be of about the same version", err)
	}
	cluster.ServerURL, cluster.alone = balancerURL, client.Alone()
	a, err := New(ctx, cfg, cluster, client, log)
	if problem := (*join.Problem)(nil); errors.As(err, &problem) {
		return nil, problem // said once, and not for each certificate
	}
	if err != nil {
		return nil, err
	}
	a.link = &link{servers: servers, client: client}
	return a, nil
}

// well says whether the kubelet works.
func (a *Agent) well() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return a.node != nil && a.node.Ready(ctx) == nil
}

// idleSeconds is how long a connection to the API may be silent before its client asks whether it is still there. The tunnel
// finds that out for all of them.
const idleSeconds = "300"

// quietClients has the Kubernetes clients of this process keep idle connections without traffic, unless the operator has said
// how.
func quietClients() error {
	const variable = "HTTP2_READ_IDLE_TIMEOUT_SECONDS"
	if os.Getenv(variable) != "" {
		return nil
	}
	return os.Setenv(variable, idleSeconds)
}

// others is a list of servers without the own.
type others struct {
	*upstream.List
	self string
}

// All implements tunnel.Servers.
func (o others) All() []string {
	return slices.DeleteFunc(o.List.All(), func(server string) bool { return server == o.self })
}

// Tunnels are the way of the other servers to the node of a server, as to any node: they have none of their own to its kubelet. self is the URL
// of the server on this machine.
func (a *Agent) Tunnels(self string) ([]supervisor.Component, error) {
	list, err := upstream.OpenList(filepath.Join(a.cfg.DataDir, "agent", "servers.json"), nil)
	if err != nil {
		return nil, err
	}
	servers := others{list, self}
	client, err := join.NewClient(join.ClientConfig{
		DataDir: a.cfg.DataDir, Servers: servers.All, NodeName: a.cfg.NodeName, NodeIPs: a.cfg.StdNodeIPs(), Log: a.log,
	})
	if err != nil {
		return nil, err
	}
	cfg, err := kube.Config(a.certs.ControllerKubeconfig, "servers")
	if err != nil {
		return nil, err
	}
	follower, err := upstream.NewFollower(upstream.FollowerConfig{Client: cfg, Servers: list, Log: a.log})
	if err != nil {
		return nil, err
	}
	t, err := tunnel.NewAgent(tunnel.AgentConfig{
		Servers: servers, TLS: client.TLS, Targets: map[string]string{tunnel.TargetKubelet: kubeletAddress}, Well: a.well, Log: a.log,
	})
	if err != nil {
		return nil, err
	}
	return []supervisor.Component{follower, supervisor.Restart(supervisor.Func{ID: "tunnels", Do: t.Run}, supervisor.RestartPolicy{Log: a.log})}, nil
}

// ReclaimVolumes is for after controllers of Kubernetes have been made in this process; see kubelet.ReclaimVolumes.
func (a *Agent) ReclaimVolumes() {
	if a.node == nil {
		return
	}
	if err := a.node.ReclaimVolumes(); err != nil {
		a.log.Warn("CSI drivers cannot register on this node until kedge starts anew", "error", err)
	}
}

// Upstream is a joined node's way to its servers: the local address that leads to one of them, the list of them, and the tunnel
// by which they reach this node.
func (a *Agent) Upstream() ([]supervisor.Component, error) {
	balancer, err := upstream.NewBalancer(upstream.BalancerConfig{Listen: balancerAddress, Servers: a.link.servers, Log: a.log})
	if err != nil {
		return nil, err
	}
	a.balancer.Store(balancer)
	cfg, err := kube.Config(a.certs.ControllerKubeconfig, "servers")
	if err != nil {
		return nil, err
	}
	follower, err := upstream.NewFollower(upstream.FollowerConfig{Client: cfg, Servers: a.link.servers, Log: a.log})
	if err != nil {
		return nil, err
	}
	t, err := tunnel.NewAgent(tunnel.AgentConfig{
		Servers: a.link.servers, TLS: a.link.client.TLS, Targets: map[string]string{tunnel.TargetKubelet: kubeletAddress, rules.Target: rules.Socket},
		Ping: time.Duration(a.cfg.TunnelKeepalive) * time.Second, Well: a.well, Lost: balancer.Drop, Found: a.api.Changed, Log: a.log,
	})
	if err != nil {
		return nil, err
	}
	parts := []supervisor.Component{balancer, follower, supervisor.Restart(t, supervisor.RestartPolicy{Log: a.log})}
	if a.cluster.alone {
		parts = append(parts, supervisor.Func{ID: "settings", Do: a.link.client.Refresh})
	}
	return parts, nil
}
