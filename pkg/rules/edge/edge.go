// Package edge is the node's end of rules: it takes messages of the bus and of programs that rules want, keeps them on disk and carries them
// to a server, in order; and it does on the node what servers ask for. Rooms of rules import it.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/plan"
	"github.com/kedge-io/kedge/pkg/rules/queue"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

// Config says whose rules these are, and how the node talks to servers and programs.
type Config struct {
	// Dir is where the plan and messages are kept.
	Dir string
	// Socket is where servers reach this node, through the tunnel.
	Socket string
	// Server is the URL that leads to a server, and TLS says, for each connection, how the two prove who they are.
	Server string
	TLS    func() (*tls.Config, error)
	// Publish gives a message to the message bus of the node.
	Publish func(topic string, payload []byte) error
	// ServiceBus is where programs on the node reach the servicebus; empty means 127.0.0.1:9060.
	ServiceBus string
	// Buffer is how many bytes of messages may wait; 0 means 32 MiB.
	Buffer int64
	Log    *slog.Logger
}

// Edge is the node's end.
type Edge struct {
	cfg    Config
	client *http.Client
	queue  *queue.Queue

	mu      sync.Mutex
	plan    wire.Plan
	changed chan struct{} // closed when the plan changes
	wake    chan struct{} // closed when messages wait
	server  chan struct{} // closed when a server was heard of
	said    time.Time     // when it was last said that messages are dropped
}

// New reads what the node knew before; it starts nothing.
func New(cfg Config) (*Edge, error) {
	if cfg.Dir == "" || cfg.Socket == "" || cfg.Server == "" || cfg.TLS == nil || cfg.Publish == nil || cfg.Log == nil {
		return nil, errors.New("rules: Dir, Socket, Server, TLS, Publish and Log are required")
	}
	if cfg.ServiceBus == "" {
		cfg.ServiceBus = "127.0.0.1:9060"
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 32 << 20
	}
	e := &Edge{cfg: cfg, changed: make(chan struct{}), wake: make(chan struct{}), server: make(chan struct{})}
	e.client = newClient(cfg.TLS)
	var err error
	if e.plan, err = loadPlan(e.planFile()); err != nil {
		cfg.Log.Warn("the rules of this node are not known until a server says them", "error", err)
	}
	if e.queue, err = queue.Open(queue.Config{Path: filepath.Join(cfg.Dir, "messages.db"), Most: cfg.Buffer, Log: cfg.Log}); err != nil {
		return nil, err
	}
	return e, nil
}

// Run works until ctx is done.
func (e *Edge) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	socket, err := e.listen()
	if err != nil {
		return err
	}
	var parts sync.WaitGroup
	parts.Go(func() { e.askForPlan(ctx) })
	parts.Go(func() { e.upload(ctx) })
	parts.Go(func() { e.serviceBus(ctx) })
	err = serve(ctx, &http.Server{Handler: e.handler()}, socket)
	stop()
	parts.Wait()
	e.client.CloseIdleConnections()
	return errors.Join(err, e.queue.Close())
}

// Take keeps a message of the bus for the rules that want it.
func (e *Edge) Take(topic string, payload []byte) error {
	var rules []string
	for _, t := range e.current().Topics {
		if plan.Hears(t.Filter, topic) {
			rules = append(rules, t.Rule)
		}
	}
	if len(rules) == 0 || !wire.Plain(topic) {
		return nil
	}
	return e.keep(rules, wire.Message{Topic: topic, Time: time.Now().UnixMilli(), Body: payload})
}

// Filters are the topics that rules want to hear, and a channel that is closed when they are others.
func (e *Edge) Filters() (filters []string, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.plan.Topics {
		filters = append(filters, t.Filter)
	}
	return filters, e.changed
}

// keep puts a message on disk.
func (e *Edge) keep(rules []string, m wire.Message) error {
	if len(m.Body) > wire.MaxMessage {
		return fmt.Errorf("a message of %d bytes is too large: at most %d", len(m.Body), wire.MaxMessage)
	}
	dropped, err := e.queue.Append(rules, m)
	if err != nil {
		return err
	}
	if dropped > 0 {
		e.sayDropped(dropped)
	}
	e.knock()
	return nil
}

// sayEvery is how often it is said that messages are dropped; rules count them all.
const sayEvery = time.Minute

func (e *Edge) sayDropped(n int) {
	e.mu.Lock()
	say := time.Since(e.said) > sayEvery
	if say {
		e.said = time.Now()
	}
	e.mu.Unlock()
	if say {
		e.cfg.Log.Warn("oldest messages for rules are dropped: too many wait for a server", "bytes", e.cfg.Buffer, "dropped", n)
	}
}

func (e *Edge) current() wire.Plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.plan
}

// planChanged returns a channel that is closed when the plan changes.
func (e *Edge) planChanged() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// woken returns a channel that is closed when there may be something to send.
func (e *Edge) woken() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wake
}

func (e *Edge) knock() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.wake)
	e.wake = make(chan struct{})
}

// heard returns a channel that is closed when a server says something.
func (e *Edge) heard() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

func (e *Edge) hear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.server)
	e.server = make(chan struct{})
}
