package join_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/test/output"
)

// site is a join API on a real TLS port, with real certificates; only the store of Secrets is a stand-in.
type site struct {
	t        *testing.T
	dir      string
	certs    *certs.Server
	ca       []byte
	secrets  corev1client.SecretInterface
	api      *join.Server
	listen   *httptest.Server
	clock    *clock
	ready    atomic.Pointer[error]
	sawToken atomic.Bool
	entered  chan struct{}                                 // gets a value when a request waits at the gate
	gate     chan struct{}                                 // holds requests until it is closed; nil holds nothing
	before   func(http.ResponseWriter, *http.Request) bool // answers instead of the API, when it returns true
}

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), clock: &clock{}, secrets: fake.NewClientset().CoreV1().Secrets(join.Namespace)}
	var err error
	if s.certs, err = certs.EnsureServer(certs.ServerConfig{
		DataDir: s.dir, APIServerURL: "https://127.0.0.1:6443", NodeName: "server", Clock: s.clock.now,
	}); err != nil {
		t.Fatal(err)
	}
	if s.ca, _, err = s.certs.CABundles(); err != nil {
		t.Fatal(err)
	}
	if err := s.files().Ensure(s.ca, "", ""); err != nil {
		t.Fatal(err)
	}
	s.api, err = join.NewServer(join.ServerConfig{
		CABundle: s.ca, Tokens: s.files(), Secrets: s.secrets, Identify: s.identify, Signer: s.certs.NodeSigner, LocalNode: "server",
		Settings: func() ([]byte, error) { return []byte(`{"Domain":"cluster.local"}`), nil },
		Ready: func(context.Context) error {
			if s.gate != nil {
				s.entered <- struct{}{}
				<-s.gate
			}
			if err := s.ready.Load(); err != nil {
				return *err
			}
			return nil
		},
		Log: slog.New(slog.DiscardHandler), Clock: s.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.listen = s.serve(s.certs.ServingAPIServer)
	return s
}

// serve serves the API with a certificate.
func (s *site) serve(pair certs.KeyPair) *httptest.Server {
	s.t.Helper()
	serving, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	l := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			s.sawToken.Store(true)
		}
		if s.before == nil || !s.before(w, r) {
			s.api.ServeHTTP(w, r)
		}
	}))
	l.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequestClientCert}
	l.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	l.StartTLS()
	s.t.Cleanup(l.Close)
	return l
}

// identify does what the API server's authenticator does with a client certificate.
func (s *site) identify(r *http.Request) (string, error) {
	if len(r.TLS.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(s.certs.ClientCA.Cert)
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		return "", errors.New("no authority")
	}
	cert := r.TLS.PeerCertificates[0]
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: s.clock.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", err
	}
	node, ok := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	if !ok {
		return "", errors.New("not a node")
	}
	return node, nil
}

func (s *site) files() join.TokenFiles { return join.NewTokenFiles(s.dir) }

// token returns the content of a token file.
func (s *site) token(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.dir + "/server/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (s *site) bootstrap() join.BootstrapTokens {
	return join.BootstrapTokens{Secrets: s.secrets, Clock: s.clock.now}
}

// machine is something that wants to be a node.
type machine struct {
	t    *testing.T
	site *site
	dir  string
	cfg  join.ClientConfig
	log  output.Buffer
}

func (s *site) machine(name, token string) *machine {
	s.t.Helper()
	m := &machine{t: s.t, site: s, dir: s.t.TempDir()}
	m.cfg = join.ClientConfig{
		DataDir: m.dir, Servers: func() []string { return []string{s.listen.URL} }, Token: token, NodeName: name,
		NodeIPs: []net.IP{net.IPv4(10, 9, 8, 7)}, Log: slog.New(slog.NewTextHandler(&m.log, nil)), Clock: s.clock.now,
	}
	return m
}

func (m *machine) client() *join.Client {
	m.t.Helper()
	c, err := join.NewClient(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// start does what an agent does at its start: learn about the cluster, then have certificates signed.
func (m *machine) start() (*certs.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := join.NewClient(m.cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.Settings(ctx); err != nil {
		return nil, err
	}
	clientCA, err := os.ReadFile(m.site.certs.ClientCA.Cert)
	if err != nil {
		return nil, err
	}
	return certs.EnsureNode(ctx, certs.NodeConfig{
		DataDir: m.dir, NodeName: m.cfg.NodeName, NodeIPs: m.cfg.NodeIPs, ServerURL: "https://127.0.0.1:6444",
		ServerCA: m.site.ca, ClientCA: clientCA, Signer: c, Clock: m.cfg.Clock,
	})
}

func (m *machine) mustStart() *certs.Node {
	m.t.Helper()
	n, err := m.start()
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// refused expects a start to fail for good, and returns the one line that the operator sees.
func (m *machine) refused() string {
	m.t.Helper()
	_, err := m.start()
	var problem *join.Problem
	if err == nil || !errors.As(err, &problem) || !problem.Permanent {
		m.t.Fatalf("got %v", err)
	}
	if strings.Contains(problem.Line, "\n") {
		m.t.Errorf("more than one line: %s", problem.Line)
	}
	return problem.Line
}

// waits expects a start to go on trying, and returns what it logged meanwhile.
func (m *machine) waits() string {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.client().Settings(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		if text := m.log.String(); strings.Contains(text, "trying again") {
			return text
		}
		time.Sleep(5 * time.Millisecond)
	}
	m.t.Fatalf("no line for the operator: %s", m.log.String())
	return ""
}

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in: %s", p, text)
		}
	}
}
