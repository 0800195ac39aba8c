package resume

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of a store: a session is about 0.7 KB.
const (
	maxSessions = 8192
	// perOwner is how many sessions of one certificate are kept: the one in use, and the one before it in case that the node has not learned of it.
	perOwner = 3
	// idSize is that of a ticket, in bytes.
	idSize = 16
)

// Store keeps the sessions of a server in memory, so that a ticket on the line is an identifier and not a certificate. When it is empty, clients
// make a full handshake. It is safe for concurrent use.
//
// A session that is taken up carries the certificate of the handshake that it began with: who asks is decided for every request by the
// certificate, as without sessions, so that one that has ended or is not trusted any more is refused.
type Store struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu     sync.Mutex
	byID   map[[idSize]byte]*list.Element
	owners map[[sha256.Size]byte][]*list.Element
	order  list.List // of *kept, the oldest in front
}

// kept is one session.
type kept struct {
	id     [idSize]byte
	owner  [sha256.Size]byte
	state  []byte
	proven time.Time // when the client has shown its key
}

// Attach has the connection of these settings take up sessions. The settings are for that connection alone, as GetConfigForClient returns them;
// sessions are kept of clients with a certificate of settings.ClientCAs.
func (s *Store) Attach(settings *tls.Config) {
	var proven time.Time
	settings.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		state, since := s.find(ticket)
		proven = since
		return state, nil
	}
	settings.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		if !cs.DidResume {
			proven = s.now()
		}
		if !trusted(cs, settings.ClientCAs, s.now()) {
			return []byte{0}, nil // a ticket may not be empty
		}
		data, err := state.Bytes()
		if err != nil {
			return nil, fmt.Errorf("keep session: %w", err)
		}
		return s.keep(cs.PeerCertificates[0], data, proven)
	}
}

// trusted says whether the client of a connection has a certificate of one of the authorities.
func trusted(cs tls.ConnectionState, authorities *x509.CertPool, now time.Time) bool {
	if len(cs.PeerCertificates) == 0 || authorities == nil {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: authorities, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

func (s *Store) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// find returns the session of a ticket and since when it is proven, or nil.
func (s *Store) find(ticket []byte) (*tls.SessionState, time.Time) {
	if len(ticket) != idSize {
		return nil, time.Time{}
	}
	s.mu.Lock()
	e := s.byID[[idSize]byte(ticket)]
	var k *kept
	if e != nil {
		if k = e.Value.(*kept); s.now().Sub(k.proven) > Life {
			s.drop(e)
			k = nil
		}
	}
	s.mu.Unlock()
	if k == nil {
		return nil, time.Time{}
	}
	state, err := tls.ParseSessionState(k.state)
	if err != nil {
		return nil, time.Time{}
	}
	return state, k.proven
}

// keep stores a session and returns its ticket.
func (s *Store) keep(client *x509.Certificate, state []byte, proven time.Time) ([]byte, error) {
	k := &kept{owner: sha256.Sum256(client.Raw), state: state, proven: proven}
	if _, err := rand.Read(k.id[:]); err != nil {
		return nil, errors.New("keep session: no random numbers")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(k)
	return k.id[:], nil
}

// drop forgets a session. The lock is held.
func (s *Store) drop(e *list.Element) {
	k := s.order.Remove(e).(*kept)
	delete(s.byID, k.id)
	own := s.owners[k.owner]
	for i := range own {
		if own[i] == e {
			own = append(own[:i:i], own[i+1:]...)
			break
		}
	}
	if s.owners[k.owner] = own; len(own) == 0 {
		delete(s.owners, k.owner)
	}
}
