package tunnel_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/tunnel"
)

const kubeletPort = 10250

// site is a server's end on a real TLS port, with real certificates.
type site struct {
	t       *testing.T
	certs   *certs.Server
	server  *tunnel.Server
	listen  *httptest.Server
	clients *x509.CertPool

	mu    sync.Mutex
	pings map[string]int // of nodes that are well
}

// beats counts the pings of a node that is well.
func (s *site) beats(node string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pings[node]
}

func newSite(t *testing.T) *site {
	t.Helper()
	c, err := certs.EnsureServer(certs.ServerConfig{DataDir: t.TempDir(), APIServerURL: "https://127.0.0.1:6443"})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, certs: c, clients: x509.NewCertPool(), pings: map[string]int{}}
	ca, err := os.ReadFile(c.ClientCA.Cert)
	if err != nil || !s.clients.AppendCertsFromPEM(ca) {
		t.Fatal("client authority", err)
	}
	s.listen = httptest.NewUnstartedServer(nil)
	s.server, err = tunnel.NewServer(tunnel.ServerConfig{
		Identify: s.identify, LocalNode: "here", KubeletPort: kubeletPort, Log: quiet(), Answer: time.Second,
		Beat: func(node string, _ time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pings[node]++
		},
		URL: "https://" + s.listen.Listener.Addr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	serving, err := tls.LoadX509KeyPair(c.ServingAPIServer.Cert, c.ServingAPIServer.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.listen.Config.Handler = s.server
	s.listen.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequestClientCert}
	s.listen.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.listen.StartTLS()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.server.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		s.listen.Close()
	})
	return s
}

// identify does what the API server's authenticator does with a client certificate.
func (s *site) identify(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	cert := r.TLS.PeerCertificates[0]
	if _, err := cert.Verify(x509.VerifyOptions{Roots: s.clients, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", err
	}
	node, ok := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	if !ok || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != "system:nodes" {
		return "", errors.New("not a node")
	}
	return node, nil
}

func (s *site) url() string { return s.listen.URL }

// clientTLS returns the settings of a client with the certificate pair.
func (s *site) clientTLS(pair certs.KeyPair) *tls.Config {
	s.t.Helper()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(s.certs.ServerCA.Cert)
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		s.t.Fatal("server authority", err)
	}
	cfg := &tls.Config{RootCAs: roots, ServerName: "kubernetes"}
	if pair.Cert != "" {
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			s.t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg
}

// nodeTLS issues the certificate of a node.
func (s *site) nodeTLS(node string) *tls.Config {
	s.t.Helper()
	signer, err := s.certs.NodeSigner(certs.NodeIdentity{Name: node, IPs: []net.IP{net.IPv4(10, 9, 8, 7)}})
	if err != nil {
		s.t.Fatal(err)
	}
	serverCA, clientCA, err := s.certs.CABundles()
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := certs.EnsureNode(context.Background(), certs.NodeConfig{
		DataDir: s.t.TempDir(), NodeName: node, NodeIPs: []net.IP{net.IPv4(10, 9, 8, 7)},
		ServerURL: s.url(), ServerCA: serverCA, ClientCA: clientCA, Signer: signer,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.clientTLS(n.ClientKubelet)
}

// join starts a node's end; change adjusts its settings.
func (s *site) join(node, kubelet string, change func(*tunnel.AgentConfig)) (*tunnel.Agent, func()) {
	s.t.Helper()
	settings := s.nodeTLS(node)
	cfg := tunnel.AgentConfig{
		Servers: &servers{urls: []string{s.url()}, changed: make(chan struct{})},
		TLS:     func() (*tls.Config, error) { return settings, nil },
		Targets: map[string]string{tunnel.TargetKubelet: kubelet},
		Ping:    time.Hour, RetryMin: 20 * time.Millisecond, RetryMax: 50 * time.Millisecond, Log: quiet(),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := tunnel.NewAgent(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	s.t.Cleanup(stop)
	return a, stop
}

func (s *site) awaitConnected(node string) {
	s.t.Helper()
	await(s.t, node+" connected", func() bool { return s.server.Connected(node) })
}

// dial opens a stream to a node's kubelet and fails the test when that fails.
func (s *site) dial(node string) net.Conn {
	s.t.Helper()
	c, err := s.server.Dial(context.Background(), "tcp", node+":10250")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// dialError expects a dial to fail, and returns how.
func (s *site) dialError(node string) string {
	s.t.Helper()
	c, err := s.server.Dial(context.Background(), "tcp", node+":10250")
	if err == nil {
		_ = c.Close()
		s.t.Fatalf("dial of %s succeeded", node)
	}
	return err.Error()
}

// servers is a list that tests change.
type servers struct {
	mu      sync.Mutex
	urls    []string
	changed chan struct{}
}

func (l *servers) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.urls...)
}

func (l *servers) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *servers) set(urls ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.urls = urls
	close(l.changed)
	l.changed = make(chan struct{})
}

// kubelet serves each connection with handle on loopback, and returns its address.
func kubelet(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				handle(c)
			}()
		}
	}()
	return l.Addr().String()
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// exchange sends text over a connection to an echo and fails when it does not come back.
func exchange(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}

// link is a proxy between a node and its server that counts bytes and can be cut.
type link struct {
	address string
	up      atomic.Bool // bytes pass
	bytes   atomic.Int64
	dials   atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l := &link{}
	l.up.Store(true)
	target := strings.TrimPrefix(to, "https://")
	l.address = "https://" + kubelet(t, func(c net.Conn) {
		l.dials.Add(1)
		far, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer far.Close()
		l.mu.Lock()
		l.conns = append(l.conns, c, far)
		l.mu.Unlock()
		go l.copy(far, c)
		l.copy(c, far)
	})
	t.Cleanup(l.cut)
	return l
}

func (l *link) copy(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		l.bytes.Add(int64(n))
		if l.up.Load() && n > 0 {
			_, _ = dst.Write(buf[:n])
		}
		if err != nil {
			_ = dst.Close()
			return
		}
	}
}

// cut closes what is connected; new connections pass.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// awaitQuiet returns when nothing has passed for a moment.
func (l *link) awaitQuiet() {
	for seen := int64(-1); seen != l.bytes.Load(); {
		seen = l.bytes.Load()
		time.Sleep(200 * time.Millisecond)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not reached: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestMain(m *testing.M) {
	logrus.SetLevel(logrus.ErrorLevel) // as kedge does
	os.Exit(m.Run())
}
