package resume

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// issue makes a certificate; without an issuer it is an authority.
func issue(t *testing.T, name string, issuer *tls.Certificate) tls.Certificate {
	t.Helper()
	return issueFor(t, name, issuer, 48*time.Hour)
}

func issueFor(t *testing.T, name string, issuer *tls.Certificate, life time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(key)
	if issuer == nil {
		template.IsCA = true
	} else {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pool(c tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Leaf)
	return p
}

// pair is a server and a client that know each other.
type pair struct {
	*testing.T
	ca, own  tls.Certificate
	store    atomic.Pointer[Store]
	address  string
	settings *tls.Config
	client   Client
	later    atomic.Int64 // how far the server's clock is ahead
	bytes    atomic.Int64
	dials    int
}

func newPair(t *testing.T) *pair {
	p := &pair{T: t, ca: issue(t, "authority", nil)}
	p.own = issue(t, "node", &p.ca)
	p.store.Store(&Store{})
	serving := issue(t, "server", &p.ca)
	clock := func() time.Time { return time.Now().Add(time.Duration(p.later.Load())) }
	p.store.Load().Now = clock
	base := &tls.Config{Time: clock, Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequestClientCert, ClientCAs: pool(p.ca)}
	outer := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		p.store.Load().Attach(c)
		return c, nil
	}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", outer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				name := "nobody"
				if conn := c.(*tls.Conn); conn.Handshake() == nil {
					if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
						name = certs[0].Subject.CommonName
					}
					_, _ = c.Write([]byte(name))
				}
			}()
		}
	}()
	p.address = l.Addr().String()
	p.settings = &tls.Config{RootCAs: pool(p.ca), ServerName: "server", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &p.own, nil
	}}
	return p
}

type meter struct {
	net.Conn
	n *atomic.Int64
}

func (m meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.n.Add(int64(n))
	return n, err
}
func (m meter) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.n.Add(int64(n))
	return n, err
}

// connect makes one connection and says who the server saw, whether a session was taken up, and what it cost.
func (p *pair) connect() (who string, resumed bool, cost int64) {
	p.Helper()
	p.bytes.Store(0)
	c, err := p.client.Handshake(p.Context(), func(ctx context.Context) (net.Conn, error) {
		p.dials++
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
		return meter{raw, &p.bytes}, err
	}, p.settings)
	if err != nil {
		p.Fatal(err)
	}
	defer c.Close()
	name := make([]byte, 20)
	n, err := c.Read(name)
	if err != nil {
		p.Fatal(err)
	}
	return string(name[:n]), c.ConnectionState().DidResume, p.bytes.Load()
}

func TestSecondConnectionIsCheap(t *testing.T) {
	p := newPair(t)
	who, resumed, full := p.connect()
	if who != "node" || resumed {
		t.Fatalf("%s, resumed %v", who, resumed)
	}
	for range 5 {
		who, resumed, cost := p.connect()
		if who != "node" || !resumed || cost > 1000 || cost > full/3 {
			t.Errorf("%s, resumed %v, %d bytes of %d", who, resumed, cost, full)
		}
	}
	if n := p.store.Load().order.Len(); n != perOwner {
		t.Errorf("%d sessions are kept", n)
	}
}

func TestForgottenSessionIsAFullHandshake(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.store.Store(&Store{}) // the server was restarted
	before := p.dials
	if who, resumed, _ := p.connect(); who != "node" || resumed || p.dials != before+2 {
		t.Errorf("%s, resumed %v, %d connections", who, resumed, p.dials-before)
	}
	if _, resumed, _ := p.connect(); !resumed {
		t.Error("the new session is not taken up")
	}
}

func TestSessionsAreHandedOver(t *testing.T) {
	p := newPair(t)
	p.connect()
	file := filepath.Join(t.TempDir(), "sessions")
	if err := p.store.Load().Save(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	next := &Store{}
	if err := next.Load(file); err != nil {
		t.Fatal(err)
	}
	p.store.Store(next)
	if who, resumed, _ := p.connect(); who != "node" || !resumed {
		t.Errorf("%s, resumed %v", who, resumed)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	old := &Store{Now: func() time.Time { return time.Now().Add(Life + time.Minute) }}
	if err := next.Save(file); err != nil {
		t.Fatal(err)
	}
	if err := old.Load(file); err != nil || old.order.Len() != 0 {
		t.Errorf("%d old sessions, %v", old.order.Len(), err)
	}
	if err := old.Load(file); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(file, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := old.Load(file); err == nil || old.order.Len() != 0 {
		t.Error("a damaged file was taken")
	}
}

func TestSessionEndsWithItsProof(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.later.Store(int64(20 * time.Minute))
	if _, resumed, _ := p.connect(); !resumed {
		t.Error("a session of 20 minutes is not taken up")
	}
	p.later.Store(int64(Life + time.Minute)) // counted from the full handshake and not from the last connection
	if _, resumed, _ := p.connect(); resumed {
		t.Error("a session whose proof is a day old was taken up")
	}
}

func TestAnotherCertificateIsAnotherSession(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.own = issue(t, "renewed", &p.ca)
	if who, resumed, _ := p.connect(); who != "renewed" || resumed {
		t.Errorf("%s, resumed %v", who, resumed)
	}
}

func TestStrangersAreNotKept(t *testing.T) {
	p := newPair(t)
	other := issue(t, "other authority", nil)
	p.own = issue(t, "stranger", &other)
	for range 2 {
		if who, resumed, _ := p.connect(); who != "stranger" || resumed {
			t.Errorf("%s, resumed %v", who, resumed)
		}
	}
	p.settings.GetClientCertificate = nil
	if who, resumed, _ := p.connect(); who != "nobody" || resumed {
		t.Errorf("%s, resumed %v", who, resumed)
	}
	if n := p.store.Load().order.Len(); n != 0 {
		t.Errorf("%d sessions are kept", n)
	}
}

func TestCertificateThatEndedIsNotTakenUp(t *testing.T) {
	p := newPair(t)
	p.own = issueFor(t, "short", &p.ca, time.Hour)
	p.connect()
	if _, resumed, _ := p.connect(); !resumed {
		t.Fatal("not taken up while it is valid")
	}
	p.later.Store(int64(2 * time.Hour))
	for range 2 {
		if _, resumed, _ := p.connect(); resumed {
			t.Error("a session is taken up under a certificate that has ended")
		}
	}
}

func TestClientForgetsOldSessions(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.client.mu.Lock()
	for k, h := range p.client.held {
		h.since = time.Now().Add(-Life - time.Second)
		p.client.held[k] = h
	}
	p.client.mu.Unlock()
	if _, resumed, _ := p.connect(); resumed {
		t.Error("the client offers a session that has ended")
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := &Store{}
	for i := range maxSessions + 100 {
		if _, err := s.keep(&x509.Certificate{Raw: []byte{byte(i), byte(i >> 8)}}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if s.order.Len() != maxSessions || len(s.byID) != maxSessions || len(s.owners) != maxSessions {
		t.Errorf("%d sessions, %d tickets, %d owners", s.order.Len(), len(s.byID), len(s.owners))
	}
	for s.order.Len() > 0 {
		s.drop(s.order.Front())
	}
	if len(s.byID) != 0 || len(s.owners) != 0 {
		t.Error("something is left")
	}
	if state, _ := s.find([]byte("too short")); state != nil {
		t.Error("a session for nothing")
	}
}

func TestSessionOutlivesALineThatIsCut(t *testing.T) {
	p := newPair(t)
	p.connect()
	near, far := net.Pipe()
	go func() {
		_, _ = far.Read(make([]byte, 100)) // the beginning is on its way
		_ = far.Close()
	}()
	if _, err := p.client.Handshake(t.Context(), func(context.Context) (net.Conn, error) { return near, nil }, p.settings); err == nil {
		t.Fatal("a handshake with nobody")
	}
	if _, resumed, _ := p.connect(); !resumed {
		t.Error("the session is lost")
	}
}

func TestTicketWithoutItsSecretIsRefused(t *testing.T) {
	p := newPair(t)
	p.connect()
	s := p.store.Load()
	for _, e := range s.byID { // the same tickets, for what somebody else has agreed upon
		other := newPair(t)
		other.connect()
		e.Value.(*kept).state = other.store.Load().order.Back().Value.(*kept).state
	}
	if who, resumed, _ := p.connect(); who != "node" || resumed {
		t.Errorf("%s, resumed %v", who, resumed)
	}
}

func TestErrorsOfTheDialAreTold(t *testing.T) {
	p := newPair(t)
	wrong := errors.New("no way")
	if _, err := p.client.Handshake(t.Context(), func(context.Context) (net.Conn, error) { return nil, wrong }, p.settings); !errors.Is(err, wrong) {
		t.Error(err)
	}
}
