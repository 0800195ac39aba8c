package join

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
)

// Times of a client.
const (
	requestTime = 15 * time.Second // one request, with all its round trips
	knownTime   = 2 * time.Second  // one request for what is known from the last time
	retryMin    = time.Second
	retryMax    = 30 * time.Second
	signTime    = 2 * time.Minute // one certificate, with attempts
)

// ClientConfig is what a node needs to know to join.
type ClientConfig struct {
	DataDir string
	// Servers returns the URLs of the servers that the node knows, the one to try first in front.
	Servers func() []string
	// Token may be empty on a node that has joined.
	Token    string
	AsServer bool // join as a server, which only a server token allows
	NodeName string
	NodeIPs  []net.IP
	Log      *slog.Logger
	Clock    func() time.Time // nil means time.Now
}

// Client asks servers for what a node needs. It implements certs.Signer.
type Client struct {
	cfg   ClientConfig
	token Token
	paths certs.NodePaths
	cache string // file with the settings of the cluster
	alone bool   // the settings are those of the last time
}

// Alone says, after Settings, that no server answered.
func (c *Client) Alone() bool { return c.alone }

// NewClient checks the settings; it connects to nothing.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.DataDir == "" || cfg.Servers == nil || cfg.Log == nil || cfg.NodeName == "" {
		return nil, errors.New("join: data directory, servers, node name and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	c := &Client{cfg: cfg, paths: certs.NewNodePaths(cfg.DataDir), cache: filepath.Join(cfg.DataDir, "agent", "cluster.json")}
	if cfg.Token != "" || cfg.AsServer {
		var err error
		if c.token, err = cfg.token(); err != nil {
			return nil, err
		}
	}
	for _, server := range cfg.Servers() {
		if err := CheckURL(server); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// CheckURL says what is wrong with the URL of a server, or nil.
func CheckURL(server string) error {
	u, err := url.Parse(server)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https":
		return fmt.Errorf("server %q must look like https://10.0.0.1:6443", server)
	case u.Port() == "":
		return fmt.Errorf("server %q has no port: write %s:6443", server, strings.TrimRight(server, "/"))
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("server %q must end after the port", server)
	}
	return nil
}

// Settings returns what a server says about the cluster, and keeps it. It waits until a server answers, unless the node has
// been told before: then it takes what was said last. It fails when waiting would not help; the error is one line for the
// operator.
func (c *Client) Settings(ctx context.Context) ([]byte, error) {
	told := ""
	patience := requestTime
	if known, err := os.ReadFile(c.cache); err == nil && json.Valid(known) {
		patience = knownTime
	}
	for attempt := 0; ; attempt++ {
		data, problem := c.askWithin(ctx, patience, func(ctx context.Context, server string) ([]byte, *Problem) {
			return c.do(ctx, server, http.MethodGet, pathConfig, nil)
		})
		if problem == nil {
			return data, c.keep(data)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if problem.Permanent {
			return nil, problem
		}
		if known, err := os.ReadFile(c.cache); err == nil && json.Valid(known) {
			c.cfg.Log.Warn("starting without the server", "reason", problem.Line)
			c.alone = true
			return known, nil
		}
		if problem.Line != told {
			told = problem.Line
			c.cfg.Log.Warn("cannot join yet, trying again", "reason", told)
		}
		if err := sleep(ctx, max(problem.retryAfter, backoff(attempt, rand.Float64()))); err != nil {
			return nil, err
		}
	}
}

// keep stores the settings for a start without the server.
func (c *Client) keep(data []byte) error {
	if !json.Valid(data) {
		return errors.New("join: the server's settings are not JSON")
	}
	if old, err := os.ReadFile(c.cache); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.cache), 0o700); err != nil {
		return fmt.Errorf("keep settings: %w", err)
	}
	return replaceFile(c.cache, data)
}

// Sign implements certs.Signer: it has a server sign for this node's key. Busy servers are asked again for a while.
func (c *Client) Sign(ctx context.Context, csrPEM []byte, kind certs.Kind) ([]byte, error) {
	body, err := json.Marshal(certificateRequest{Node: c.cfg.NodeName, IPs: c.cfg.NodeIPs, Kind: kind, CSR: string(csrPEM)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	for attempt := 0; ; attempt++ {
		data, problem := c.ask(ctx, func(ctx context.Context, server string) ([]byte, *Problem) {
			return c.do(ctx, server, http.MethodPost, pathCertificate, body)
		})
		if problem == nil {
			return data, nil
		}
		// An unreachable server is the caller's to wait for: it may have certificates that still work.
		if problem.Permanent || problem.retryAfter == 0 {
			return nil, problem
		}
		if err := sleep(ctx, problem.retryAfter+backoff(attempt, rand.Float64())); err != nil {
			return nil, problem
		}
	}
}

// ask tries the servers in turn. When all fail it returns the problem that most needs the operator.
func (c *Client) ask(ctx context.Context, do func(context.Context, string) ([]byte, *Problem)) ([]byte, *Problem) {
	return c.askWithin(ctx, requestTime, do)
}

// askWithin is ask with the time that each server has.
func (c *Client) askWithin(ctx context.Context, patience time.Duration, do func(context.Context, string) ([]byte, *Problem)) ([]byte, *Problem) {
	var worst *Problem
	for _, server := range c.cfg.Servers() {
		one, cancel := context.WithTimeout(ctx, patience)
		data, problem := do(one, strings.TrimRight(server, "/"))
		cancel()
		if problem == nil {
			return data, nil
		}
		if worst == nil || problem.Permanent && !worst.Permanent {
			worst = problem
		}
	}
	if worst == nil {
		return nil, &Problem{Line: "no server is known: set --server to the URL of one, for example https://10.0.0.1:6443", Permanent: true}
	}
	return nil, worst
}

// backoff is the pause after a number of failed attempts, spread by a quarter to either side; r is random in [0, 1).
func backoff(attempt int, r float64) time.Duration {
	d := min(retryMin<<min(attempt, 10), retryMax)
	return time.Duration(float64(d) * (0.75 + r/2))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// do makes one request, with all credentials that this node has, to a server that has proven who it is.
func (c *Client) do(ctx context.Context, server, method, path string, body []byte) ([]byte, *Problem) {
	facts := facts{server: server, now: c.cfg.Clock(), node: c.cfg.NodeName, token: c.token, asServer: c.cfg.AsServer}
	roots, err := c.trust(ctx, server, &facts)
	if err != nil {
		return nil, explain(err, facts)
	}
	r, err := http.NewRequestWithContext(ctx, method, server+path, bytes.NewReader(body))
	if err != nil {
		return nil, explain(err, facts)
	}
	if c.token.Secret != "" {
		c.token.authorize(r)
	}
	client := newHTTP(&tls.Config{RootCAs: roots, ServerName: servingName, Time: c.cfg.Clock, GetClientCertificate: c.nodeKey(&facts)})
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		if errors.As(err, new(x509.CertificateInvalidError)) {
			c.askTime(ctx, server, &facts)
		}
		return nil, explain(err, facts)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	switch {
	case err != nil:
		return nil, explain(fmt.Errorf("read the answer: %w", err), facts)
	case len(data) > maxResponse:
		return nil, explain(fmt.Errorf("answer of more than %d bytes", maxResponse), facts)
	case resp.StatusCode != http.StatusOK:
		return nil, explain(readAnswer(resp, data), facts)
	}
	return data, nil
}

// newHTTP returns a client that dials the server itself: a proxy would see nothing but could change everything.
func newHTTP(settings *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: settings, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, MaxIdleConns: 1, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// trust returns the authority that the server must prove itself with: the stored one, or the one that the server shows and the
// token vouches for. Nothing secret is sent before.
func (c *Client) trust(ctx context.Context, server string, facts *facts) (*x509.CertPool, error) {
	bundle, err := os.ReadFile(c.paths.ServerCA)
	known := err == nil && (c.token.CAHash == "" || c.token.CAHash == HashCA(bundle))
	if !known {
		if bundle, err = c.fetchCA(ctx, server, facts); err != nil {
			return nil, err
		}
		facts.shownCA = HashCA(bundle)
		if c.token.CAHash != "" && !same(facts.shownCA, c.token.CAHash) {
			return nil, errWrongCA
		}
		if c.token.CAHash == "" {
			c.cfg.Log.Warn("the token does not say which cluster it belongs to: the server's authority is taken on trust",
				"server", server, "authority", facts.shownCA)
		}
	}
	facts.pinned = known
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errNotKedge
	}
	return roots, nil
}

// fetchCA reads the authority from a server that is not trusted yet.
func (c *Client) fetchCA(ctx context.Context, server string, facts *facts) ([]byte, error) {
	resp, data, err := c.plain(ctx, server+PathCACerts, facts)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, readAnswer(resp, data)
	}
	if block, _ := pem.Decode(data); block == nil || block.Type != "CERTIFICATE" || len(data) > maxBundle {
		return nil, errNotKedge
	}
	return data, nil
}

// plain makes a request without any credentials to somebody who may be anybody.
func (c *Client) plain(ctx context.Context, address string, facts *facts) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	client := newHTTP(&tls.Config{InsecureSkipVerify: true}) // the content is compared with the token
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBundle+1))
	if date, e := http.ParseTime(resp.Header.Get("Date")); e == nil {
		facts.serverTime = date
	}
	return resp, data, err
}

// askTime finds out what the server thinks the time is, to blame the right clock.
func (c *Client) askTime(ctx context.Context, server string, facts *facts) {
	if !facts.serverTime.IsZero() {
		return
	}
	_, _, _ = c.plain(ctx, server+PathPing, facts) // without an answer the clock is not blamed
}

// readAnswer turns an answer that is not a success into an error.
func readAnswer(resp *http.Response, data []byte) error {
	a := &answer{status: resp.StatusCode}
	if err := json.Unmarshal(data, &a.refusal); err != nil || a.refusal.Code == "" {
		a.refusal = refusal{}
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = min(time.Duration(seconds)*time.Second, retryMax)
	}
	return a
}

// TLS returns the settings of a connection to a server: it proves itself as one of the cluster, and the node with its
// certificate. Certificates are read anew for each connection, because they are renewed in place.
func (c *Client) TLS() (*tls.Config, error) {
	bundle, err := os.ReadFile(c.paths.ServerCA)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s holds no certificate", c.paths.ServerCA)
	}
	return &tls.Config{RootCAs: roots, ServerName: servingName, Time: c.cfg.Clock, GetClientCertificate: c.nodeKey(&facts{})}, nil
}

// nodeKey presents the node's certificate in a handshake, be it valid or not; before there is one, a certificate that the node
// signed itself. Either proves that this machine holds the node's key. Before there is a key, it presents nothing.
func (c *Client) nodeKey(facts *facts) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		keyPEM, err := os.ReadFile(c.paths.ClientKubelet.Key)
		if errors.Is(err, os.ErrNotExist) {
			return &tls.Certificate{}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the node's key: %w", err)
		}
		if cert, err := os.ReadFile(c.paths.ClientKubelet.Cert); err == nil {
			if pair, err := tls.X509KeyPair(cert, keyPEM); err == nil {
				facts.ended = pair.Leaf.NotAfter
				return &pair, nil
			}
		}
		return selfSigned(keyPEM)
	}
}

// selfSigned wraps a bare key for a handshake. The server looks at nothing but the key.
func selfSigned(keyPEM []byte) (*tls.Certificate, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return &tls.Certificate{}, nil // damaged: certs makes another before it asks for a certificate
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return &tls.Certificate{}, nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("show the node's key: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
