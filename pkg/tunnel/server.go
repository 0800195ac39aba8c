package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher/remotedialer"

	"github.com/kedge-io/kedge/pkg/tunnel/wire"
)

// ServerConfig is what the server's end needs to know.
type ServerConfig struct {
	// Identify returns the name of the node whose certificate the request was made with, and an error for everybody else.
	Identify func(*http.Request) (node string, err error)
	// LocalNode is the node on this machine, which is dialed directly; empty for none.
	LocalNode string
	// URL is the address by which the cluster knows this server, as in the endpoints of the Service kubernetes: a node that is
	// connected by another address need not try this one. Empty for unknown.
	URL string
	// Beat is called for each ping of a node that is in order, with the time until its next one; nil for nobody. It must not wait.
	Beat func(node string, period time.Duration)
	// KubeletPort is the port of the kubelets.
	KubeletPort int
	// MaxSessions bounds how many nodes may be connected; 0 means 5000.
	MaxSessions int
	// Answer is how long a node may be late with its second missing ping; 0 means 20 s.
	Answer time.Duration
	Log    *slog.Logger
}

// Server is the server's end: an HTTP handler for Path, a dialer for the API server, and a component that closes the sessions at
// the end.
type Server struct {
	cfg     ServerConfig
	mux     *remotedialer.Server
	nextTag atomic.Int64
	nextKey atomic.Int64

	mu       sync.Mutex
	sessions map[string]*session // by node
	stopped  bool
}

// session is the connection of one node.
type session struct {
	node, key, via string
	from           netip.Addr // where the connection comes from
	conn           *wire.Conn
	ledger         *wire.Ledger
}

// NewServer prepares the server's end.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Identify == nil || cfg.Log == nil {
		return nil, errors.New("tunnel: identify and log are required")
	}
	if strings.ContainsAny(cfg.URL, "\r\n") {
		return nil, fmt.Errorf("tunnel: server URL %q is not one line", cfg.URL)
	}
	if cfg.KubeletPort <= 0 || cfg.KubeletPort > 65535 {
		return nil, fmt.Errorf("tunnel: kubelet port %d is not a port", cfg.KubeletPort)
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 5000
	}
	if cfg.Answer == 0 {
		cfg.Answer = answerTime
	}
	s := &Server{cfg: cfg, sessions: map[string]*session{}}
	s.mux = remotedialer.New(func(r *http.Request) (string, bool, error) {
		key, ok := r.Context().Value(sessionKey{}).(string)
		return key, ok, nil
	}, func(w http.ResponseWriter, _ *http.Request, code int, err error) {
		http.Error(w, err.Error(), code)
	})
	return s, nil
}

// sessionKey is the context key under which ServeHTTP hands the session's name to the multiplexer.
type sessionKey struct{}

// Name implements supervisor.Component.
func (*Server) Name() string { return "tunnel" }

// Ready implements supervisor.Component.
func (*Server) Ready(context.Context) error { return nil }

// Run implements supervisor.Component: it closes the sessions when it is told to stop.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.stopped = true
	open := make([]*session, 0, len(s.sessions))
	for _, one := range s.sessions {
		open = append(open, one)
	}
	s.mu.Unlock()
	for _, one := range open {
		one.conn.End(errors.New("the server stops"))
	}
	return nil
}

// ServeHTTP takes the connection of a node. The node's name comes from its certificate and from nowhere else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node, err := s.cfg.Identify(r)
	if err != nil {
		http.Error(w, "the tunnel is for nodes, with their certificate", http.StatusUnauthorized)
		return
	}
	ping, via, err := readHeaders(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if code, err := s.admit(node, via, r.Header.Get(headerConnected)); err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	one := &session{node: node, via: via, from: remote(r), key: node + "/" + strconv.FormatInt(s.nextKey.Add(1), 10), ledger: wire.NewLedger()}
	hijacker := &guardingWriter{ResponseWriter: w, taken: func(c net.Conn) (net.Conn, error) {
		one.conn = wire.Guard(c, s.guard(node, ping, one.ledger))
		return one.conn, s.add(one)
	}}
	r.Header = r.Header.Clone()
	r.Header.Del(remotedialer.ID) // servers do not peer through this handler
	r.Header.Del(remotedialer.Token)
	s.mux.ServeHTTP(hijacker, r.WithContext(context.WithValue(r.Context(), sessionKey{}, one.key)))
	if one.conn != nil {
		_ = one.conn.Close()
		s.remove(one)
	}
}

func (s *Server) guard(node string, ping time.Duration, ledger *wire.Ledger) wire.Config {
	c := wire.Config{Dead: lostAfter(ping, s.cfg.Answer), WriteTimeout: writeTimeout, Ledger: ledger}
	c.Ping = func(content byte) {
		if content == pingWell && s.cfg.Beat != nil {
			s.cfg.Beat(node, ping)
		}
	}
	if s.cfg.URL != "" {
		c.Greeting = headerServer + ": " + s.cfg.URL
	}
	return c
}

func readHeaders(h http.Header) (ping time.Duration, via string, err error) {
	seconds, err := strconv.Atoi(h.Get(headerPing))
	if err != nil || seconds < 1 || seconds > 3600 {
		return 0, "", fmt.Errorf("%s must be 1 to 3600 seconds", headerPing)
	}
	if via = h.Get(headerVia); len(via) > maxVia {
		return 0, "", fmt.Errorf("%s is longer than %d bytes", headerVia, maxVia)
	}
	return time.Duration(seconds) * time.Second, via, nil
}

// admit says whether a node may connect now, and the status code if not.
func (s *Server) admit(node, via, connected string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.sessions[node]
	switch {
	case s.stopped:
		return http.StatusServiceUnavailable, errors.New("the server stops")
	case held != nil && redundant(held.via, via, connected):
		return http.StatusConflict, errors.New("connected already by " + held.via)
	case held == nil && len(s.sessions) >= s.cfg.MaxSessions:
		return http.StatusServiceUnavailable, errors.New("too many nodes are connected")
	}
	return 0, nil
}

// add makes one the session of its node. An older one is a connection that broke without our knowing.
func (s *Server) add(one *session) error {
	s.mu.Lock()
	old := s.sessions[one.node]
	stopped := s.stopped
	if !stopped {
		s.sessions[one.node] = one
	}
	s.mu.Unlock()
	if stopped {
		return errors.New("the server stops")
	}
	if old != nil {
		old.conn.End(errors.New("the node connected anew"))
	}
	s.cfg.Log.Debug("node connected", "node", one.node, "via", one.via)
	return nil
}

func (s *Server) remove(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[one.node] == one {
		delete(s.sessions, one.node)
		s.cfg.Log.Debug("node disconnected", "node", one.node, "reason", one.conn.Failure())
	}
}

// Connected reports whether the node has a session with this server.
func (s *Server) Connected(node string) bool { return s.session(node) != nil }

// From returns the address from which a node's session comes, if it has one.
func (s *Server) From(node string) (netip.Addr, bool) {
	one := s.session(node)
	if one == nil || !one.from.IsValid() {
		return netip.Addr{}, false
	}
	return one.from, true
}

func remote(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

func (s *Server) session(node string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[node]
}

// Dial connects the API server to an address. A kubelet is known by its node's name and port: that of this machine is dialed
// directly, all others through the tunnel. Every other address is dialed directly.
func (s *Server) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var direct net.Dialer
	switch {
	case port != strconv.Itoa(s.cfg.KubeletPort) || net.ParseIP(host) != nil:
		return direct.DialContext(ctx, network, address)
	case host == s.cfg.LocalNode: // the kubelet's port only: loopback holds what is not for others
		return direct.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	return s.DialNode(ctx, host, TargetKubelet)
}

// DialNode opens a stream to a target of a node. It returns when the node's own dial has succeeded, or says why it has not.
func (s *Server) DialNode(ctx context.Context, node, target string) (net.Conn, error) {
	one := s.session(node)
	if one == nil {
		return nil, fmt.Errorf("node %s is not connected to this server: its kedge does not run, or cannot reach this server", node)
	}
	if one.ledger.Len() >= maxStreams {
		return nil, fmt.Errorf("node %s: more than %d connections at once", node, maxStreams)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if err := s.awaitUpgrade(ctx, one); err != nil {
		return nil, fmt.Errorf("node %s: open a stream: %w", node, err)
	}
	tag := "s" + strconv.FormatInt(s.nextTag.Add(1), 10)
	account := one.ledger.Open(tag)
	raw, err := s.mux.Dialer(one.key)(ctx, tag, target)
	if err != nil {
		account.Close()
		return nil, fmt.Errorf("node %s: open a stream: %w", node, err)
	}
	c := newStream(raw, account, node, target)
	if err := awaitAccepted(ctx, c); err != nil {
		_ = c.Close()
		if reason := one.conn.Failure(); reason != nil {
			err = reason
		}
		return nil, fmt.Errorf("node %s: reach its %s: %w", node, target, err)
	}
	return c, nil
}

// awaitUpgrade returns when the multiplexer knows the session, which is a moment after we do.
func (s *Server) awaitUpgrade(ctx context.Context, one *session) error {
	for !s.mux.HasSession(one.key) {
		if s.session(one.node) != one {
			return errors.New("the session has ended")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// awaitAccepted reads the byte that the node sends first.
func awaitAccepted(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var b [1]byte
	_, err := c.Read(b[:])
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer through the tunnel: %w", ctx.Err())
	case err != nil:
		return err
	case b[0] != accepted:
		return errors.New("the node speaks another version of the tunnel")
	}
	return nil
}

// guardingWriter puts the guard under a connection when it is taken over.
type guardingWriter struct {
	http.ResponseWriter
	taken func(net.Conn) (net.Conn, error)
}

// Hijack implements http.Hijacker.
func (g *guardingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, _, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	guarded, err := g.taken(c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return guarded, bufio.NewReadWriter(bufio.NewReader(guarded), bufio.NewWriter(guarded)), nil
}
