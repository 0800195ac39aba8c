// Package twin keeps devices in step on a node: what the API and the operator want reaches the driver, what the driver finds reaches both,
// and all of it goes on while the node is cut off. Its rooms are the parts; agent and cli import this one.
package twin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/twin/cluster"
	"github.com/kedge-io/kedge/pkg/twin/dmi"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/local"
	"github.com/kedge-io/kedge/pkg/twin/mqtt"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/bridge"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

// Sockets of a node. Drivers of the family know the first.
const (
	familySocket = "/etc/kubeedge/dmi.sock"
	DriverSocket = "/run/kedge/dmi.sock"
	LocalSocket  = "/run/kedge/devices.sock"
	// ProgramLink leads to the running kedge, for drivers in pods: its place differs between machines.
	ProgramLink = "/run/kedge/kedge"
)

// linkProgram makes ProgramLink.
func linkProgram() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(ProgramLink), 0o755); err != nil {
		return err
	}
	if err := os.Remove(ProgramLink); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(program, ProgramLink)
}

// NodeConfig says for which node twins are kept, and where.
type NodeConfig struct {
	// Kubeconfig is the path of a kubeconfig file whose user may read devices and write their status.
	Kubeconfig string
	NodeName   string
	// Dir is where twins are kept.
	Dir string
	Bus Bus
	// Tap hears what clients of the message bus, and of an existing broker, publish; nil for nobody.
	Tap bridge.Tap
	Log *slog.Logger
}

// BusTLS, BusLimits and ExistingBus are parts of Bus.
type (
	BusTLS      = mqtt.TLS
	BusLimits   = mqtt.Limits
	ExistingBus = bridge.Config
)

// Bus says how the message bus of the node is.
type Bus struct {
	// Off leaves it out. Clients of an existing broker are served all the same.
	Off bool
	// Listen are addresses with ports, whatever the operator said on the node; beyond this machine the bus speaks TLS only.
	Listen []string
	// Credentials is a file with clients, see clients.Credentials, beside those that the operator added on the node.
	Credentials string
	// Anonymous lets clients on this machine in without a name.
	Anonymous bool
	TLS       BusTLS
	Limits    BusLimits
	// Existing is a broker that is there already; nil for none. Its Hub, Tap and Log are those of the node.
	Existing *ExistingBus
}

// Node is the component "devices". A part of it that fails is started again: the pods of a node do not depend on its devices.
type Node struct {
	cfg    NodeConfig
	client dynamic.Interface
	hub    *hub.Hub
	bus    *mqtt.Broker
	// existing is nil where there is none.
	existing *bridge.Bridge
	parts    []supervisor.Component
	up       atomic.Bool
}

// NewNode reads what the node knew before; it starts nothing and connects nothing.
func NewNode(cfg NodeConfig) (*Node, error) {
	if cfg.NodeName == "" || cfg.Dir == "" {
		return nil, errors.New("devices: NodeName or Dir is empty")
	}
	rest, err := kube.Config(cfg.Kubeconfig, "devices")
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg}
	if n.client, err = dynamic.NewForConfig(rest); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if n.hub, err = hub.New(hub.Config{Dir: cfg.Dir, Node: cfg.NodeName, Log: cfg.Log}); err != nil {
		return nil, err
	}
	link := cluster.New(cluster.Config{Hub: n.hub, Client: n.client, Log: cfg.Log})
	drivers, err := dmi.New(dmi.Config{Hub: n.hub, Sockets: []string{DriverSocket, familySocket}, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	door := local.NewServer(local.Config{Hub: n.hub, Socket: LocalSocket, Log: cfg.Log})
	n.parts = []supervisor.Component{
		n.part("devices-api", link.Run), n.part("devices-drivers", drivers.Run), n.part("devices-local", door.Run),
	}
	return n, n.openBus()
}

// openBus adds the message buses that the node has.
func (n *Node) openBus() error {
	bus := n.cfg.Bus
	file := BusFile(n.cfg.Dir)
	file.Addresses, file.Credentials, file.Anonymous = bus.Listen, bus.Credentials, bus.Anonymous
	n.bus = mqtt.New(mqtt.Config{Hub: n.hub, Clients: file, TLS: bus.TLS, Limits: bus.Limits, Tap: n.cfg.Tap, Log: n.cfg.Log})
	if !bus.Off {
		n.parts = append([]supervisor.Component{n.part("devices-bus", n.bus.Run)}, n.parts...)
	}
	if bus.Existing == nil {
		return nil
	}
	cfg := *bus.Existing
	cfg.Hub, cfg.Tap, cfg.Log = n.hub, n.cfg.Tap, n.cfg.Log
	existing, err := bridge.New(cfg)
	if err != nil {
		return err
	}
	n.existing = existing
	n.parts = append([]supervisor.Component{n.part("devices-existing-bus", existing.Run)}, n.parts...)
	return nil
}

func (n *Node) part(name string, run func(context.Context) error) supervisor.Component {
	return supervisor.Restart(supervisor.Func{ID: name, Do: run}, supervisor.RestartPolicy{Log: n.cfg.Log})
}

// BusFile is the file that says who may use the message bus of a node whose twins are in dir.
func BusFile(dir string) *clients.File { return &clients.File{Path: filepath.Join(dir, "bus.json")} }

// Publish gives a message to clients of the message bus, and to those of an existing one. It fails when neither takes it.
func (n *Node) Publish(topic string, payload []byte) error {
	err := n.bus.Publish(topic, payload)
	if n.existing != nil {
		if other := n.existing.Publish(topic, payload); other == nil {
			return nil
		} else if err != nil {
			err = other
		}
	}
	return err
}

// Name implements supervisor.Component.
func (*Node) Name() string { return "devices" }

// Ready implements supervisor.Component.
func (n *Node) Ready(context.Context) error {
	if !n.up.Load() {
		return errors.New("starting")
	}
	return nil
}

// Run implements supervisor.Component. The store is closed after everything that uses it.
func (n *Node) Run(ctx context.Context) error {
	if err := linkProgram(); err != nil {
		n.cfg.Log.Warn("drivers in pods do not find kedge", "path", ProgramLink, "error", err)
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	kept := make(chan error, 1)
	go func() { kept <- n.hub.Run(keep) }()
	n.up.Store(true)
	err := supervisor.Group("devices", n.parts...).Run(ctx)
	stop()
	return errors.Join(err, <-kept)
}
