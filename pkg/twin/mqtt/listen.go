package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

// Names of listeners: those that only this machine reaches, where passwords may go in the clear, and the others.
const (
	loopback = "loopback"
	exposed  = "exposed"
)

// Limits are what the broker holds at most; zero stands for the default.
type Limits struct {
	// Connections are those of clients and those that have not said who they are together, and sessions of clients that are away. Default 512.
	Connections int
	// Packet is the size of the largest packet that a client may send, in bytes. Default MaxPacket.
	Packet int
	// Queue is what may wait for one client, in bytes. Default 4 MiB. For all clients together it is 32 MiB, or Queue if that is more.
	Queue int
}

func (l Limits) complete() Limits {
	for field, value := range map[*int]int{&l.Connections: 512, &l.Packet: MaxPacket, &l.Queue: 4 << 20} {
		if *field == 0 {
			*field = value
		}
	}
	return l
}

// TLS says how the broker shows who it is beyond this machine. Files are PEM and read at each connection.
type TLS struct {
	Cert, Key string
	// ClientCA, when set, is the authority whose certificates clients must show beside their password.
	ClientCA string
}

// config is what a connection is to be made with.
func (t TLS) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read certificate of the message bus: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.ClientCA == "" {
		return c, nil
	}
	text, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read authority of the clients of the message bus: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read authority of the clients of the message bus: %s holds no certificate", t.ClientCA)
	}
	return c, nil
}

// securedListener speaks TLS; a handshake begins with the first read, not here.
type securedListener struct {
	net.Listener
	config *tls.Config
}

// Accept implements net.Listener.
func (l securedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.config), nil
}

// listen opens the addresses, all or none.
func (b *Broker) listen(server *mochi.Server, settings clients.Settings) (err error) {
	var open []net.Listener
	defer func() {
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	gate := newGate(b.limits.Connections)
	addresses := settings.Addresses()
	if slices.ContainsFunc(addresses, clients.Exposed) {
		if _, err := b.cfg.TLS.config(); err != nil { // said now, not to the first client
			return err
		}
	}
	for i, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("message bus: %w", err)
		}
		open = append(open, l)
		name := loopback
		if clients.Exposed(address) {
			name = exposed
			l = securedListener{l, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return b.cfg.TLS.config() }}}
		}
		if err := server.AddListener(listeners.NewNet(fmt.Sprintf("%s-%d", name, i), guardedListener{l, gate})); err != nil {
			return fmt.Errorf("prepare message bus: %w", err)
		}
	}
	return nil
}
