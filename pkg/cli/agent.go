package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/agent"
	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/check"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/memory"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/version"
)

func (p *program) agentCommand() *cli.Command {
	const usage = "run a node that joins a server"
	settings := config.AgentSettings()
	return &cli.Command{
		Name: "agent", Usage: usage, Flags: settingFlags(settings),
		CustomHelpTemplate: manual("agent", usage, settings),
		Action: func(c *cli.Context) error {
			cfg, err := config.LoadAgent(sources(c, settings))
			if err != nil {
				return err
			}
			for _, url := range cfg.Servers {
				if err := join.CheckURL(url); err != nil {
					return err
				}
			}
			return p.start(cfg.Log, agentChecks(cfg), func(ctx context.Context, log *slog.Logger) error {
				parts, err := node(ctx, cfg, log)
				if err != nil {
					return unlessStopped(ctx, err)
				}
				return p.supervise(ctx, "agent", log, parts)
			})
		},
	}
}

// agentChecks says what an agent with these settings needs of the machine.
func agentChecks(cfg config.Agent) check.Config {
	return check.Config{
		DataDir: cfg.DataDir, Node: true, KubeProxy: true, Snapshotter: cfg.Snapshotter,
		Files:  map[string]string{"resolv-conf": cfg.ResolvConf, "token-file": cfg.TokenFile, "private-registry": namedRegistry(cfg)},
		CAFile: certs.NewNodePaths(cfg.DataDir).ServerCA, Built: version.Get().Date,
	}
}

// namedRegistry is the file of private-registry when another one than the usual was named: that may be missing.
func namedRegistry(cfg config.Agent) string {
	if cfg.PrivateRegistry == config.DefaultPrivateRegistry {
		return ""
	}
	return cfg.PrivateRegistry
}

// node joins a server, or takes up again what it has joined, and returns the node's parts in start order: the way to the
// servers, the container runtime, and then what needs both.
func node(ctx context.Context, cfg config.Agent, log *slog.Logger) ([]supervisor.Component, error) {
	memory.Start(memory.AgentStart)
	if err := completeNode(&cfg); err != nil {
		return nil, err
	}
	if err := ownAddresses(cfg); err != nil {
		return nil, err
	}
	if err := readTokens(map[string]*string{cfg.TokenFile: &cfg.Token}); err != nil {
		return nil, err
	}
	a, err := agent.Join(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	way, err := a.Upstream()
	if err != nil {
		return nil, err
	}
	runtime, err := a.Runtime()
	if err != nil {
		return nil, err
	}
	rest, err := a.Node()
	if err != nil {
		return nil, err
	}
	renewer, err := certs.NewRenewer(certs.RenewerConfig{DataDir: cfg.DataDir, Sets: []certs.Renewable{a.Certs()}, Log: log})
	if err != nil {
		return nil, err
	}
	return []supervisor.Component{
		supervisor.Group("base", append(way, a.NodeAPI(), runtime)...), supervisor.Group("node", rest...), renewer, memory.New(memory.Config{Log: log}),
	}, nil
}

// completeNode fills in what is found by looking at this machine.
func completeNode(cfg *config.Agent) error {
	if len(cfg.NodeIPs) == 0 {
		ip, err := agent.NodeAddress(cfg.DataDir)
		if err != nil {
			return fmt.Errorf("find this node's address: %w", err)
		}
		cfg.NodeIPs, cfg.NodeIPFound = []netip.Addr{ip}, true
	}
	if cfg.WithNodeID {
		id, err := nodeID(filepath.Join(cfg.DataDir, "node-id"))
		if err != nil {
			return err
		}
		cfg.NodeName += "-" + id
	}
	return nil
}

// ownAddresses refuses addresses for this node that no interface has: nothing could listen there.
func ownAddresses(cfg config.Agent) error {
	if cfg.NodeIPFound {
		return nil
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("look for this machine's addresses: %w", err)
	}
	var own []string
	for _, a := range interfaces {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			own = append(own, p.Addr().Unmap().String())
		}
	}
	for _, ip := range cfg.NodeIPs {
		if !slices.Contains(own, ip.String()) {
			return fmt.Errorf("--node-ip: %s is not an address of this machine, which has %s; an address under which others reach it through a router is --node-external-ip",
				ip, strings.Join(own, ", "))
		}
	}
	return nil
}

// nodeID returns the number that this machine keeps for --with-node-id, and makes it the first time.
func nodeID(path string) (string, error) {
	stored, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(stored)); err == nil && regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(id) {
		return id, nil
	}
	if err == nil {
		return "", fmt.Errorf("%s does not hold 8 hex digits: remove it to get a new node name", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read node id: %w", err)
	}
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	id := hex.EncodeToString(random)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("keep node id: %w", err)
	}
	if err := os.WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("keep node id: %w", err)
	}
	return id, nil
}

// readTokens fills tokens from the files that settings name; empty names are passed over.
func readTokens(files map[string]*string) error {
	for path, token := range files {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		*token = strings.TrimSpace(string(data))
	}
	return nil
}
