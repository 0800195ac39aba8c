package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"

	"github.com/kedge-io/kedge/pkg/resume"
	"github.com/kedge-io/kedge/pkg/tunnel/wire"
)

// Servers is the list of servers that a node knows, as URLs like https://10.0.0.1:6443.
type Servers interface {
	// All returns the list as it is now.
	All() []string
	// Changed returns a channel that is closed at the next change of the list.
	Changed() <-chan struct{}
}

// AgentConfig is what the node's end needs to know.
type AgentConfig struct {
	Servers Servers
	// TLS returns the settings for one connection: the cluster's authority and the node's certificate.
	TLS func() (*tls.Config, error)
	// Targets says where the named targets of this node are, as host:port or the path of a socket; servers can reach nothing else.
	Targets map[string]string
	// Ping is how often an idle node says that it is there; 0 means DefaultPing.
	Ping time.Duration
	// Well says whether this node is in order, which every ping tells the server; nil means always.
	Well func() bool
	// Lost is called when the session with a server of the list has ended; nil for nobody.
	Lost func(server string)
	// Found returns a channel that is closed when somebody else has reached a server again, or lost it: then nothing is waited for; nil for nobody.
	Found func() <-chan struct{}
	// Answer is how long a ping may go unanswered; 0 means 20 s.
	Answer time.Duration
	// RetryMin and RetryMax bound the pause before another attempt; 0 means 1 s and 8 s. A node
	// that was cut off is back as soon after the cut as RetryMax is short.
	RetryMin, RetryMax time.Duration
	Log                *slog.Logger
}

// Agent is the node's end: a component that keeps one session with each server.
type Agent struct {
	cfg      AgentConfig
	sessions resume.Client

	mu        sync.Mutex
	connected map[string]string // by server URL, the URL that the server gives itself
	loss      chan struct{}     // closed when the next session is lost
}

// NewAgent prepares the node's end.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.Servers == nil || cfg.TLS == nil || cfg.Log == nil {
		return nil, errors.New("tunnel: servers, TLS and log are required")
	}
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.Ping < time.Second || cfg.Ping > time.Hour {
		return nil, fmt.Errorf("tunnel: ping period %s must be between 1s and 1h", cfg.Ping)
	}
	if cfg.Answer == 0 {
		cfg.Answer = answerTime
	}
	if cfg.RetryMin <= 0 {
		cfg.RetryMin = time.Second
	}
	if cfg.RetryMax < cfg.RetryMin {
		cfg.RetryMax = max(8*time.Second, cfg.RetryMin)
	}
	return &Agent{cfg: cfg, connected: map[string]string{}, loss: make(chan struct{})}, nil
}

// Name implements supervisor.Component.
func (*Agent) Name() string { return "tunnel" }

// Ready implements supervisor.Component. A node works without its servers.
func (*Agent) Ready(context.Context) error { return nil }

// Connected returns the servers that this node has a session with, sorted.
func (a *Agent) Connected() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]string, 0, len(a.connected))
	for server := range a.connected {
		out = append(out, server)
	}
	slices.Sort(out)
	return out
}

func (a *Agent) setConnected(server, self string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected[server] = self
}

func (a *Agent) setLost(server string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.connected, server)
	close(a.loss)
	a.loss = make(chan struct{})
}

// nextLoss returns a channel that is closed when the next session is lost.
func (a *Agent) nextLoss() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.loss
}

// reached reports whether the server of this URL is connected by another one.
func (a *Agent) reached(server string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for via, self := range a.connected {
		if self == server && via != server {
			return true
		}
	}
	return false
}

// Run implements supervisor.Component: one loop for each server of the list, as the list changes.
func (a *Agent) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	running := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	for {
		changed := a.cfg.Servers.Changed()
		servers := a.cfg.Servers.All()
		for server, stop := range running {
			if !slices.Contains(servers, server) {
				stop()
				delete(running, server)
			}
		}
		for _, server := range servers {
			if running[server] == nil {
				loop, stop := context.WithCancel(ctx)
				running[server] = stop
				loops.Go(func() { a.keep(loop, server) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// keep holds a session with one server until ctx is done. It logs when the state changes, not at every attempt.
func (a *Agent) keep(ctx context.Context, server string) {
	log := a.cfg.Log.With("server", server)
	lost, known := false, false
	for failures := 0; ; failures++ {
		change, found := a.nextLoss(), (<-chan struct{})(nil)
		if a.cfg.Found != nil {
			found = a.cfg.Found()
		}
		lasted, err := a.session(ctx, server, func() {
			if lost {
				log.Info("tunnel to the server is back")
			}
			lost, known = false, true
		})
		if lasted > a.cfg.RetryMax {
			failures = 0
		}
		longest := a.cfg.RetryMax
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errRedundant): // until the session that makes it so is lost
			failures, longest = 16, farRetry
		case !lost:
			log.Warn("tunnel to the server is down, trying again", "error", err)
			lost = true
		default:
			log.Debug("tunnel attempt failed", "error", err)
		}
		if !known && len(a.Connected()) > 0 {
			longest = farRetry // it may be out of reach from here for good
		}
		wait := pause(a.cfg.RetryMin, longest, failures, rand.Float64())
		if errors.Is(err, errRedundant) {
			found = change
		}
		select {
		case <-ctx.Done():
			return
		case <-found:
		case <-time.After(wait):
		}
	}
}

// pause is the wait before attempt number failures+2: low, doubled each time up to high, and spread by a quarter to either
// side; r is a random number in [0, 1).
func pause(low, high time.Duration, failures int, r float64) time.Duration {
	d := low
	for range failures {
		if d >= high/2 {
			d = high
			break
		}
		d *= 2
	}
	return time.Duration(float64(d) * (0.75 + r/2))
}

// errRedundant says that the server is connected by another of its addresses.
var errRedundant = errors.New("the server is connected by another address")

// session opens one session and serves it to its end.
func (a *Agent) session(ctx context.Context, server string, up func()) (lasted time.Duration, err error) {
	if a.reached(server) {
		return 0, errRedundant
	}
	ledger := wire.NewLedger()
	ws, guard, self, err := a.connect(ctx, server, ledger)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	ws.SetReadLimit(2 * chunk)
	session := remotedialer.NewClientSessionWithDialer(func(string, string) bool { return true }, ws, a.dialer(ledger))
	a.setConnected(server, self)
	up()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { guard.End(context.Cause(ctx)) })
	defer stop()
	go a.ping(ctx, ws)
	_, err = session.Serve(ctx)
	a.setLost(server)
	if a.cfg.Lost != nil {
		a.cfg.Lost(server)
	}
	_ = ws.Close()
	session.Close()
	if reason := guard.Failure(); reason != nil {
		err = reason
	}
	return time.Since(begin), fmt.Errorf("session ended: %w", err)
}

// ping speaks up at once and then on a quiet link, each time a little earlier or later than the last.
func (a *Agent) ping(ctx context.Context, ws *websocket.Conn) {
	for {
		content := pingWell
		if a.cfg.Well != nil && !a.cfg.Well() {
			content = pingIll
		}
		if err := ws.WriteControl(websocket.PingMessage, []byte{content}, time.Now().Add(writeTimeout)); err != nil {
			_ = ws.Close()
			return
		}
		period := time.Duration(float64(a.cfg.Ping) * (0.9 + rand.Float64()/10))
		select {
		case <-ctx.Done():
			return
		case <-time.After(period):
		}
	}
}

// connect performs the handshakes and returns the connection, its guard, and the URL that the server gives itself.
func (a *Agent) connect(ctx context.Context, server string, ledger *wire.Ledger) (ws *websocket.Conn, guard *wire.Conn, self string, err error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return nil, nil, "", fmt.Errorf("server URL %q must look like https://10.0.0.1:6443", server)
	}
	settings, err := a.cfg.TLS()
	if err != nil {
		return nil, nil, "", err
	}
	settings = settings.Clone()
	settings.NextProtos = []string{"http/1.1"}
	if settings.ServerName == "" {
		settings.ServerName = u.Hostname()
	}
	dialer := websocket.Dialer{
		HandshakeTimeout: handshake,
		WriteBufferSize:  chunk + 1024, // a message goes out as one frame
		NetDialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			// Our own pings take the place of TCP's, which are far more frequent.
			d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
			c, err := a.sessions.Handshake(ctx, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }, settings)
			if err != nil {
				return nil, err
			}
			guard = wire.Guard(c, wire.Config{Agent: true, Dead: deadAfter(a.cfg.Ping, a.cfg.Answer), WriteTimeout: writeTimeout, Ledger: ledger})
			return guard, nil
		},
	}
	header := http.Header{
		headerPing:      {strconv.Itoa(int(a.cfg.Ping.Seconds()))},
		headerVia:       {server},
		headerConnected: {strings.Join(a.Connected(), ",")},
	}
	ws, resp, err := dialer.DialContext(ctx, "wss://"+u.Host+Path, header)
	if err != nil {
		return nil, nil, "", refusal(resp, err)
	}
	return ws, guard, resp.Header.Get(headerServer), nil
}

// refusal says why a server did not open a session.
func refusal(resp *http.Response, err error) error {
	if resp == nil {
		return fmt.Errorf("connect: %w", err)
	}
	if resp.StatusCode == http.StatusConflict {
		return errRedundant
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return fmt.Errorf("server answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
}

// dialer opens the node's end of streams. A refusal is an answer on the stream and leaves the session alone.
func (a *Agent) dialer(ledger *wire.Ledger) remotedialer.Dialer {
	slots := make(chan struct{}, maxStreams)
	return func(ctx context.Context, tag, target string) (net.Conn, error) {
		account := ledger.Open(tag)
		c, err := a.dial(ctx, slots, target)
		if err != nil {
			account.Close()
			return nil, err
		}
		return newLocal(c, account, func() { <-slots }), nil
	}
}

func (a *Agent) dial(ctx context.Context, slots chan struct{}, target string) (net.Conn, error) {
	address, ok := a.cfg.Targets[target]
	if !ok {
		return nil, fmt.Errorf("target %.40q is not allowed", target)
	}
	select {
	case slots <- struct{}{}:
	default:
		return nil, fmt.Errorf("more than %d connections at once", maxStreams)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		<-slots
		return nil, err
	}
	return c, nil
}
