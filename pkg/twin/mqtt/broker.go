// Package mqtt is the message bus of a node: a broker on which devices and applications read and write twins, in the topics of the family.
// It is the only package that knows the broker's library. Rooms of twin import it.
package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/desk"
)

// What the broker holds at most, beside Limits.
const (
	// MaxPacket is the size of the largest packet that a client may send unless Limits say something else, in bytes.
	MaxPacket = 256 << 10
	// maxSubscriptions is the number of filters of one client.
	maxSubscriptions = 64
	// maxPending and maxInflight bound messages on their way to one client, and maxSession how long they wait for it, in seconds.
	maxPending  = 512
	maxInflight = 128
	maxSession  = 600
	// maxWaiting is what waits for all clients, in bytes.
	maxWaiting = 32 << 20
)

// lookAgain is how often the broker looks whether it is needed.
const lookAgain = 2 * time.Second

// Config says what the broker serves.
type Config struct {
	Hub *hub.Hub
	// Clients says who may connect, and where the broker listens.
	Clients *clients.File
	TLS     TLS
	Limits  Limits
	// Tap hears what clients publish besides questions to the node; nil for nobody.
	Tap Tap
	Log *slog.Logger
}

// Broker runs while somebody may connect and the node has devices, or its tap wants messages.
type Broker struct {
	cfg    Config
	limits Limits
	every  time.Duration                // how often it looks whether it is needed
	open   atomic.Pointer[mochi.Server] // while it runs
}

// New starts nothing.
func New(cfg Config) *Broker {
	return &Broker{cfg: cfg, limits: cfg.Limits.complete(), every: lookAgain}
}

// Run serves until ctx is done. While nobody needs the broker there is none.
func (b *Broker) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		settings, err := b.cfg.Clients.Load()
		if err != nil {
			return err
		}
		if b.needed(settings) {
			if err := b.serve(ctx, settings); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(b.every):
		}
	}
	return nil
}

// serve runs the broker until ctx is done, nobody needs it, or it is to listen elsewhere.
func (b *Broker) serve(ctx context.Context, settings clients.Settings) error {
	server := mochi.New(&mochi.Options{
		InlineClient: true, Logger: slog.New(slog.DiscardHandler), SysTopicResendInterval: 3600,
		ClientNetReadBufferSize: 2048, ClientNetWriteBufferSize: 2048, Capabilities: b.capabilities(),
	})
	answers := desk.New(desk.Config{Hub: b.cfg.Hub, Log: b.cfg.Log, Publish: func(topic string, payload []byte) error {
		return server.Publish(topic, payload, false, 1)
	}})
	h := &hook{
		hub: b.cfg.Hub, clients: b.cfg.Clients, tap: b.cfg.Tap, server: server, desk: answers, sessions: b.limits.Connections,
		queues: newQueues(b.limits.Queue, max(maxWaiting, b.limits.Queue)), log: b.cfg.Log,
	}
	if err := server.AddHook(h, nil); err != nil {
		return fmt.Errorf("prepare message bus: %w", err)
	}
	if err := b.listen(server, settings); err != nil {
		return err
	}
	if err := server.Serve(); err != nil {
		return fmt.Errorf("serve message bus: %w", err)
	}
	b.open.Store(server)
	defer b.open.Store(nil)
	addresses := settings.Addresses()
	b.cfg.Log.Info("message bus is open", "addresses", addresses, "tls", slices.ContainsFunc(addresses, clients.Exposed))
	answers.Announce(ctx, func() bool {
		now, err := b.cfg.Clients.Load()
		return err == nil && slices.Equal(now.Addresses(), addresses) && b.needed(now)
	})
	if err := server.Close(); err != nil {
		return fmt.Errorf("close message bus: %w", err)
	}
	return nil
}

func (b *Broker) capabilities() *mochi.Capabilities {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumClients = int64(b.limits.Connections)
	c.MaximumPacketSize = uint32(b.limits.Packet)
	c.MaximumClientWritesPending = maxPending
	c.MaximumInflight, c.ReceiveMaximum = maxInflight, maxInflight
	c.MaximumSessionExpiryInterval = maxSession
	c.MaximumMessageExpiryInterval = maxSession
	c.TopicAliasMaximum = 0
	c.RetainAvailable = 0 // what is now is asked for with twin/get
	c.SharedSubAvailable = 0
	return c
}
