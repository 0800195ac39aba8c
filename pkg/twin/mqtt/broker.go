// Package mqtt is the message bus of a node: a broker on which devices and applications read and write twins, in the topics of the family.
// It is the only package that knows the broker's library. Rooms of twin import it.
package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"golang.org/x/net/netutil"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

// What the broker holds at most.
const (
	// MaxPacket is the size of the largest packet that a client may send, in bytes.
	MaxPacket = 256 << 10
	// maxClients is the number of connections, those that have not said who they are included.
	maxClients = 512
	// maxSubscriptions is the number of filters of one client.
	maxSubscriptions = 64
	// maxPending and maxInflight bound messages on their way to one client, and maxSession how long they wait for it, in seconds.
	maxPending  = 256
	maxInflight = 128
	maxSession  = 600
)

// lookAgain is how often the broker looks whether it is needed.
const lookAgain = 2 * time.Second

// Config says what the broker serves.
type Config struct {
	Hub *hub.Hub
	// Clients says who may connect, and where the broker listens.
	Clients *clients.File
	// Cert and Key are PEM files for TLS, read at each connection.
	Cert, Key string
	Log       *slog.Logger
}

// Broker runs while the node has devices and somebody may connect.
type Broker struct{ cfg Config }

// New starts nothing.
func New(cfg Config) *Broker { return &Broker{cfg} }

// Run serves until ctx is done. While nobody needs the broker there is none.
func (b *Broker) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		settings, err := b.cfg.Clients.Load()
		if err != nil {
			return err
		}
		if len(settings.Clients) > 0 && b.cfg.Hub.Len() > 0 {
			if err := b.serve(ctx, settings); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// serve runs the broker until ctx is done, nobody needs it, or it is to listen elsewhere.
func (b *Broker) serve(ctx context.Context, settings clients.Settings) error {
	listener, err := b.listen(settings)
	if err != nil {
		return err
	}
	server := mochi.New(&mochi.Options{
		InlineClient: true, Logger: slog.New(slog.DiscardHandler), SysTopicResendInterval: 3600,
		ClientNetReadBufferSize: 2048, ClientNetWriteBufferSize: 2048, Capabilities: capabilities(),
	})
	h := &hook{hub: b.cfg.Hub, clients: b.cfg.Clients, server: server, told: map[string]string{}, log: b.cfg.Log}
	if err := errors.Join(server.AddHook(h, nil), server.AddListener(listeners.NewNet("devices", listener))); err != nil {
		return errors.Join(fmt.Errorf("prepare message bus: %w", err), listener.Close())
	}
	if err := server.Serve(); err != nil {
		return fmt.Errorf("serve message bus: %w", err)
	}
	b.cfg.Log.Info("message bus is open", "address", settings.Address(), "tls", settings.Exposed())
	h.announce(ctx, func() bool {
		now, err := b.cfg.Clients.Load()
		return err == nil && now.Address() == settings.Address() && len(now.Clients) > 0 && b.cfg.Hub.Len() > 0
	})
	if err := server.Close(); err != nil {
		return fmt.Errorf("close message bus: %w", err)
	}
	return nil
}

func capabilities() *mochi.Capabilities {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumClients = maxClients
	c.MaximumPacketSize = MaxPacket
	c.MaximumClientWritesPending = maxPending
	c.MaximumInflight, c.ReceiveMaximum = maxInflight, maxInflight
	c.MaximumSessionExpiryInterval = maxSession
	c.MaximumMessageExpiryInterval = maxSession
	c.TopicAliasMaximum = 0
	c.RetainAvailable = 0 // what is now is asked for with twin/get
	c.SharedSubAvailable = 0
	return c
}

func (b *Broker) listen(settings clients.Settings) (net.Listener, error) {
	l, err := net.Listen("tcp", settings.Address())
	if err != nil {
		return nil, fmt.Errorf("message bus: %w", err)
	}
	l = netutil.LimitListener(l, maxClients)
	if !settings.Exposed() {
		return l, nil
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(b.cfg.Cert, b.cfg.Key)
		return &pair, err
	}}), nil
}
