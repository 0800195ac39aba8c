// Package rules carries messages between programs on nodes and programs elsewhere, as objects of rules.kubeedge.io say: through the tunnel,
// and from a node's disk when the link was cut. Its rooms are the parts; server, agent and the node's devices meet in this one.
package rules

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kedge-io/kedge/pkg/rules/edge"
	"github.com/kedge-io/kedge/pkg/rules/router"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// Target is the name by which servers reach a node's end through the tunnel, and Socket where it is on the node.
const (
	Target = "rules"
	Socket = "/run/kedge/rules.sock"
)

// Server is the servers' end: a component, and the handler of its paths on the shared port.
type Server = router.Router

// ServerConfig is what it needs to know.
type ServerConfig = router.Config

// NewServer starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) { return router.New(cfg) }

// Handles says whether a path of the shared port is the Server's.
func Handles(path string) bool { return router.Handles(path) }

// NodeConfig is what a node's end needs to know.
type NodeConfig = edge.Config

// Node is a node's end: a component, and what hears messages of the message bus.
type Node struct {
	cfg  NodeConfig
	edge *edge.Edge
	up   atomic.Bool
}

// NewNode reads what the node knew before; it starts nothing.
func NewNode(cfg NodeConfig) (*Node, error) {
	e, err := edge.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, edge: e}, nil
}

// Name implements supervisor.Component.
func (*Node) Name() string { return "rules-node" }

// Ready implements supervisor.Component.
func (n *Node) Ready(context.Context) error {
	if !n.up.Load() {
		return errors.New("starting")
	}
	return nil
}

// Run implements supervisor.Component. When something fails it is started again: nothing else depends on it.
func (n *Node) Run(ctx context.Context) error {
	n.up.Store(true)
	part := supervisor.Func{ID: n.Name(), Do: n.edge.Run}
	if err := supervisor.Restart(part, supervisor.RestartPolicy{Log: n.cfg.Log}).Run(ctx); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

// Wanted says that the bus is to run when it has clients: rules whose source is rest may send to every node, and a node does not know them.
func (*Node) Wanted() bool { return true }

// Filters are the topics that the rules of the node want to hear, and a channel that is closed when they are others.
func (n *Node) Filters() (filters []string, changed <-chan struct{}) { return n.edge.Filters() }

// Take keeps a message of the bus for the rules that want it; when it returns nil, a power cut does not lose it.
func (n *Node) Take(topic string, payload []byte) error { return n.edge.Take(topic, payload) }
