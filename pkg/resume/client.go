// Package resume takes up TLS sessions where they ended, so that a connection of a node that returns costs a sixth of its first one: what both
// ends have agreed upon before takes the place of certificates and of the large keys. Client is the node's end, Store the server's.
// It is a foundation; features whose connections cross lines that cost something import it.
package resume

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Life is how long after a full handshake its session can be taken up. Then the node proves again that it holds its key.
const Life = 24 * time.Hour

// maxHeld bounds the sessions of a client: a node has three certificates, and a session of each with every server.
const maxHeld = 64

// errForgotten says that a server does not know a session any more, for example because it was restarted.
var errForgotten = errors.New("the server has forgotten the session")

// Client holds the sessions of a node. The zero value is ready for use, and safe for concurrent use.
type Client struct {
	mu   sync.Mutex
	held map[string]held
}

type held struct {
	session *tls.ClientSessionState
	since   time.Time
}

// Handshake opens a connection with dial, and takes up the last session with this server under the same certificate, if there is one. settings
// must name the server. ctx bounds all of it.
//
// A first handshake has the key exchange that computers of the future do not break, which is 2.3 KB. One that takes up a session has X25519
// alone: what it protects depends on the secret of the first one as well. A server that has forgotten the session would be left with X25519: that
// handshake is given up, and a full one made instead.
func (c *Client) Handshake(ctx context.Context, dial func(context.Context) (net.Conn, error), settings *tls.Config) (*tls.Conn, error) {
	for {
		offer, resuming, err := c.offer(settings)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, offer)
		if err = conn.HandshakeContext(ctx); err == nil {
			return conn, nil
		}
		_ = raw.Close() // the handshake's error is the one that says something
		if !resuming || !refused(err) {
			return nil, err
		}
		c.forget() // what one server has lost at its restart it has lost for all certificates
	}
}

// refused says whether a session is of no use any more: one end has said so, and it is not the line that failed.
func refused(err error) bool {
	var op *net.OpError
	return errors.Is(err, errForgotten) || errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") // an alert, as package tls has it
}

// offer returns the settings of the next connection, and whether it is to take up a session.
func (c *Client) offer(settings *tls.Config) (*tls.Config, bool, error) {
	offer := settings.Clone()
	if settings.GetClientCertificate == nil {
		return offer, false, nil // servers keep no sessions of strangers
	}
	pair, err := settings.GetClientCertificate(new(tls.CertificateRequestInfo))
	if err != nil {
		return nil, false, fmt.Errorf("read the client certificate: %w", err)
	}
	if len(pair.Certificate) == 0 {
		return offer, false, nil
	}
	offer.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	identity := sha256.Sum256(pair.Certificate[0]) // a session ends with the certificate that it began with
	cache := slot{client: c, identity: string(identity[:])}
	offer.ClientSessionCache = cache
	if _, ok := cache.Get(settings.ServerName); !ok {
		return offer, false, nil
	}
	offer.MinVersion = tls.VersionTLS13
	offer.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	offer.VerifyConnection = func(cs tls.ConnectionState) error {
		if !cs.DidResume {
			return errForgotten
		}
		return nil
	}
	return offer, true, nil
}

func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.held)
}

// slot is what TLS sees of the sessions: those of one certificate.
type slot struct {
	client   *Client
	identity string
}

// Get implements tls.ClientSessionCache.
func (s slot) Get(server string) (*tls.ClientSessionState, bool) {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	h, ok := s.client.held[s.identity+server]
	if !ok || time.Since(h.since) > Life {
		return nil, false
	}
	return h.session, true
}

// Put implements tls.ClientSessionCache. That a session is thrown away at every failure is not for lines that are cut: refused decides.
func (s slot) Put(server string, session *tls.ClientSessionState) {
	if session == nil {
		return
	}
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	key := s.identity + server
	if s.client.held == nil {
		s.client.held = map[string]held{}
	}
	if _, ok := s.client.held[key]; !ok && len(s.client.held) >= maxHeld {
		clear(s.client.held)
	}
	s.client.held[key] = held{session: session, since: time.Now()}
}
