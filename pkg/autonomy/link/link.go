// Package link knows whether the server can be reached, and carries requests to it under the identities of this node.
// It is an inner room of pkg/autonomy; only packages of it import it.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/resume"
)

// State says what is known about the way to the server.
type State int

// The states of a link. It never returns to Starting.
const (
	Starting State = iota
	Up
	Down
)

// String is the state in a word.
func (s State) String() string { return [...]string{"starting", "up", "down"}[s] }

// Times of a link.
const (
	probeTimeout = 4 * time.Second
	// checkTimeout and doubtTimeout bound the probes of a link that was up: on its connection, and on a new one.
	checkTimeout, doubtTimeout = 1500 * time.Millisecond, 3 * time.Second
	// longestPause is between probes after a long outage.
	longestPause = 2 * time.Second
	// startPause is between probes while everything waits for a server that starts.
	startPause = 100 * time.Millisecond
	// Connections that say nothing for long are probed; the tunnel notices a lost link sooner, and ends them.
	pingAfter, pingTimeout = 5 * time.Minute, 15 * time.Second
)

// Credential names the files of a client certificate; the zero value is for requests that bring a token.
type Credential struct{ Cert, Key string }

// Config is what a link needs to know.
type Config struct {
	// Server is its URL, for example https://127.0.0.1:6444.
	Server string
	// CA is the file with the authorities that the server's certificate must come from.
	CA string
	// Probe is who asks whether the server is there.
	Probe Credential
	// Reach, when set, says whether there is any use in a probe, at less cost.
	Reach func(context.Context) error
	// Patience is how long a server that does not answer may still be starting.
	Patience time.Duration
	Log      *slog.Logger
}

// Link is the way to the server. It is safe for concurrent use.
type Link struct {
	cfg     Config
	server  *url.URL
	doubt   chan struct{}
	account account
	// sessions make all connections but the first ones cheap.
	sessions resume.Client
	probing  sync.Mutex // held during the one probe of a search

	mu      sync.Mutex
	state   State
	since   time.Time
	changed chan struct{}
	epoch   *epoch
}

type way struct {
	credential Credential
	upgrade    bool // for connections that become streams, which HTTP/2 does not carry
}

// New prepares a link; it connects to nothing.
func New(cfg Config) (*Link, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("node API: server URL %q must look like https://127.0.0.1:6443", cfg.Server)
	}
	return &Link{cfg: cfg, server: u, doubt: make(chan struct{}, 1), changed: make(chan struct{}), epoch: newEpoch(), since: time.Now()}, nil
}

// Server is the URL that requests go to.
func (l *Link) Server() *url.URL { return l.server }

// State returns the state, since when it holds, and a channel that is closed when it changes.
func (l *Link) State() (State, time.Time, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.since, l.changed
}

// Up says whether the server can be reached as far as is known.
func (l *Link) Up() bool {
	s, _, _ := l.State()
	return s == Up
}

// Await waits until the link's first state is known, but no longer than patience, and says whether it is up.
func (l *Link) Await(ctx context.Context, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		state, _, changed := l.State()
		if state != Starting {
			return state == Up
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case <-changed:
		}
	}
}

// Epoch returns a context that ends when the link is lost.
func (l *Link) Epoch() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch.ctx
}

// Doubt has the link probed, because a request got no answer.
func (l *Link) Doubt() {
	select {
	case l.doubt <- struct{}{}:
	default:
	}
}

// Transport carries requests under an identity until the link is lost. With upgrade it is for connections that become streams.
func (l *Link) Transport(c Credential, upgrade bool) (http.RoundTripper, error) {
	l.mu.Lock()
	e := l.epoch
	l.mu.Unlock()
	return l.transport(e, way{c, upgrade})
}

func (l *Link) transport(e *epoch, w way) (*counted, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.ways[w]; ok {
		return t, nil
	}
	pem, err := os.ReadFile(l.cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("read the server's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", l.cfg.CA)
	}
	settings := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: l.server.Hostname(), NextProtos: []string{"h2", "http/1.1"}}
	if w.upgrade {
		settings.NextProtos = []string{"http/1.1"}
	}
	if w.credential != (Credential{}) { // read for each connection, because certificates are renewed in place
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(w.credential.Cert, w.credential.Key)
			return &pair, err
		}
	}
	t := &http.Transport{
		ForceAttemptHTTP2: !w.upgrade, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 4,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.secure(ctx, e, settings, network, address)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	if w.upgrade {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	c := &counted{Transport: t, account: &l.account, log: l.cfg.Log}
	if !w.upgrade {
		c.gate = make(chan struct{}, 1)
	}
	e.ways[w] = c
	return c, nil
}

// Run watches the link until ctx is done.
func (l *Link) Run(ctx context.Context) {
	defer l.lose(Down)
	patience := time.AfterFunc(l.cfg.Patience, l.settle)
	defer patience.Stop()
	for ctx.Err() == nil {
		if !l.Up() {
			l.search(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-l.doubt:
		}
		if err := l.check(ctx); err != nil && ctx.Err() == nil {
			l.lose(Down)
			l.cfg.Log.Warn("the server cannot be reached: this node works on its own", "error", err)
		}
	}
}

// check looks whether the server answers: on the connection that there is, which costs next to nothing, and when that is silent on a new one.
func (l *Link) check(ctx context.Context) error {
	l.mu.Lock()
	e := l.epoch
	l.mu.Unlock()
	if l.probe(ctx, e, checkTimeout) == nil {
		return nil
	}
	fresh := newEpoch()
	defer fresh.end()
	return l.probe(ctx, fresh, doubtTimeout)
}

// search probes until the server answers. Attempts overlap: one that began before the link came back would hold up the next.
func (l *Link) search(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()
	won := make(chan struct{}, 1)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, longestPause) {
		probes.Go(func() {
			if l.attempt(ctx) {
				select {
				case won <- struct{}{}:
				default:
				}
			}
		})
		if state, _, _ := l.State(); state == Starting {
			pause = min(pause, startPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-won:
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// attempt looks for the server once. Where that can be found out by a packet, only one attempt at a time makes a whole connection: each is
// several kilobytes.
func (l *Link) attempt(ctx context.Context) (found bool) {
	if l.cfg.Reach != nil {
		reach, cancel := context.WithTimeout(ctx, probeTimeout)
		err := l.cfg.Reach(reach)
		cancel()
		if err != nil || !l.probing.TryLock() {
			return false
		}
		defer l.probing.Unlock()
	}
	e := newEpoch()
	if ctx.Err() != nil || l.Up() || l.probe(ctx, e, probeTimeout) != nil { // it is up when another attempt was quicker
		e.end()
		return false
	}
	l.find(e)
	return true
}

// probe asks the server for a sign of life.
func (l *Link) probe(ctx context.Context, e *epoch, timeout time.Duration) error {
	t, err := l.transport(e, way{credential: l.cfg.Probe})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.server.JoinPath("/readyz").String(), nil)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // the connection is used again
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the server says %s", resp.Status)
	}
	return nil
}

// settle ends Starting.
func (l *Link) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Starting {
		l.set(Down)
		l.cfg.Log.Warn("the server cannot be reached: this node works on its own")
	}
}

func (l *Link) set(s State) {
	l.state, l.since = s, time.Now()
	close(l.changed)
	l.changed = make(chan struct{})
}

// find makes the link up, with the connection of the probe.
func (l *Link) find(e *epoch) {
	l.mu.Lock()
	if l.state == Up {
		l.mu.Unlock()
		e.end()
		return
	}
	old, was := l.epoch, l.state
	outage := time.Since(l.since)
	l.epoch = e
	l.set(Up)
	select {
	case <-l.doubt: // about what was before
	default:
	}
	l.mu.Unlock()
	old.end()
	if was == Down {
		l.cfg.Log.Info("the server can be reached", "after", outage.Round(time.Millisecond))
	}
}

func (l *Link) lose(s State) {
	l.mu.Lock()
	old := l.epoch
	l.epoch = newEpoch()
	if l.state != s {
		l.set(s)
	}
	l.mu.Unlock()
	old.end()
}
