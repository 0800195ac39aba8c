// Package gossip is the node's half of neighbour health: it keeps in touch with the other nodes of its unit by SWIM, encrypted and
// authenticated, and tells the server what it thinks of them in an annotation of its own Node.
// It is a feature: agent wires it.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/metadata"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
	"github.com/kedge-io/kedge/pkg/kube"
)

// Config says what the gossip needs.
type Config struct {
	// Kubeconfig is that of the kubelet: it may write its own Node.
	Kubeconfig string
	NodeName   string
	// Address is where neighbours reach this node.
	Address netip.Addr
	// Key is the cluster's secret, 32 bytes.
	Key []byte
	// StateFile remembers the neighbourhood for a start without the server.
	StateFile string
	Log       *slog.Logger
}

// Agent is the component "neighbours" of a node.
type Agent struct {
	cfg    Config
	client metadata.Interface
	places chan string // the latest neighbourhood that the server wrote

	mu       sync.Mutex
	told     string // what stands in the annotation
	asked    bool   // told is known
	ring     *ring
	ringFrom time.Time
}

// New checks cfg and connects to nothing.
func New(cfg Config) (*Agent, error) {
	if cfg.NodeName == "" || !cfg.Address.IsValid() || len(cfg.Key) != 32 || cfg.StateFile == "" || cfg.Log == nil {
		return nil, errors.New("neighbours: node name, address, key of 32 bytes, state file and log are required")
	}
	rest, err := kube.Config(cfg.Kubeconfig, "neighbours")
	if err != nil {
		return nil, err
	}
	client, err := metadata.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Agent{cfg: cfg, client: client, places: make(chan string, 1)}, nil
}

// Name implements supervisor.Component.
func (*Agent) Name() string { return "neighbours" }

// Ready implements supervisor.Component. A node works without neighbours.
func (*Agent) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (a *Agent) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	if text, err := os.ReadFile(a.cfg.StateFile); err == nil {
		a.offer(string(text))
	}
	loops.Go(func() { a.follow(ctx) })
	loops.Go(func() { a.tell(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case text := <-a.places:
			if !a.settle(ctx, text) {
				return nil
			}
		}
	}
}

// offer makes a neighbourhood the next one, in place of another that waits.
func (a *Agent) offer(text string) {
	for {
		select {
		case a.places <- text:
			return
		default:
		}
		select {
		case <-a.places:
		default:
		}
	}
}

// settle gossips in a neighbourhood until there is another one; it returns false when ctx is done. An address that is not free
// is tried again.
func (a *Agent) settle(ctx context.Context, text string) bool {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		wait := time.Duration(1<<62 - 1)
		if err := a.gossip(ctx, text); err != nil {
			if pause == time.Second {
				a.cfg.Log.Warn("cannot gossip with neighbours, trying again", "error", err)
			}
			wait = pause
		}
		select {
		case <-ctx.Done():
			return false
		case text = <-a.places:
			pause = time.Second / 2
		case <-time.After(wait):
		}
	}
}

// gossip is in a ring of the neighbourhood until there is another one or ctx is done. Without one it returns at once.
func (a *Agent) gossip(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	place, err := note.ParsePlace(text)
	if err != nil {
		return err
	}
	r, err := startRing(ctx, a.cfg, place)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.ring, a.ringFrom = r, time.Now()
	a.mu.Unlock()
	inner, cancel := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { r.keep(inner) })
	a.stay(ctx, r)
	cancel()
	keeper.Wait()
	a.mu.Lock()
	a.ring = nil
	a.mu.Unlock()
	if err := r.stop(); err != nil {
		a.cfg.Log.Debug("gossip ended with an error", "error", err)
	}
	return nil
}

// stay returns when the ring is not the right one any more. Other seeds are no reason: they are only for the beginning.
func (a *Agent) stay(ctx context.Context, r *ring) {
	for {
		select {
		case <-ctx.Done():
			return
		case text := <-a.places:
			place, err := note.ParsePlace(text)
			if err != nil || !r.move(place) {
				a.offer(text)
				return
			}
		}
	}
}

// Tell says for the status how the neighbours are.
func (a *Agent) Tell() string {
	a.mu.Lock()
	r := a.ring
	a.mu.Unlock()
	if r == nil {
		return "no neighbours to gossip with"
	}
	alive, missing := r.counts()
	unit := "in the local network"
	if r.place.Unit != "" {
		unit = "of unit " + r.place.Unit
	}
	return fmt.Sprintf("%d neighbours %s answer, %d do not", alive, unit, missing)
}

// remember keeps the neighbourhood for a start without the server.
func (a *Agent) remember(text string) {
	if old, err := os.ReadFile(a.cfg.StateFile); err == nil && string(old) == text {
		return
	}
	temp := a.cfg.StateFile + ".new"
	err := os.MkdirAll(filepath.Dir(temp), 0o700)
	if err == nil {
		err = os.WriteFile(temp, []byte(text), 0o600)
	}
	if err == nil {
		err = os.Rename(temp, a.cfg.StateFile)
	}
	if err != nil {
		a.cfg.Log.Warn("neighbourhood not remembered", "error", err)
	}
}
