// Package status tells this machine how kedge stands: the status socket for kedge status and /readyz, and the messages for
// systemd. It is a foundation like supervisor, whose answers it passes on; server, agent and cli import it.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/kedge-io/kedge/pkg/socket"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/version"
)

// DefaultSocket is where a running kedge answers.
const DefaultSocket = "/run/kedge/kedge.sock"

// ErrNotRunning says that nobody answers on the status socket.
var ErrNotRunning = errors.New("kedge is not running")

// Report is the answer of a running kedge.
type Report struct {
	// Mode is server or agent.
	Mode    string    `json:"mode"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Ready says that every component is ready, but for optional ones.
	Ready      bool                `json:"ready"`
	Components []supervisor.Status `json:"components"`
}

// Config holds what a Server needs.
type Config struct {
	// Path of the socket; its directory is made. Default: DefaultSocket.
	Path string
	// Mode is server or agent.
	Mode string
	// Components answers for all components: the Supervisor's Status.
	Components func() []supervisor.Status
	// Systemd receives the watchdog pings; the zero value sends none.
	Systemd Systemd
}

// Server answers on the status socket and keeps systemd's watchdog calm. It is a component; make it the first of the list,
// so that it answers while the others start.
type Server struct {
	cfg      Config
	started  time.Time
	listener net.Listener
}

// New opens the status socket, for root only. A socket left behind by a kedge that died is replaced; one that a living
// kedge answers on is an error.
func New(cfg Config) (*Server, error) {
	if cfg.Path == "" {
		cfg.Path = DefaultSocket
	}
	if cfg.Components == nil {
		return nil, errors.New("status: Components is not set")
	}
	if conn, err := net.Dial("unix", cfg.Path); err == nil {
		return nil, errors.Join(fmt.Errorf("another kedge answers on %s: stop it first", cfg.Path), conn.Close())
	}
	l, err := socket.Listen(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open status socket: %w", err)
	}
	return &Server{cfg: cfg, started: time.Now(), listener: l}, nil
}

// Name implements supervisor.Component.
func (s *Server) Name() string { return "status" }

// Ready implements supervisor.Component: New has opened the socket.
func (s *Server) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second}
	watchdog := make(chan struct{})
	go func() {
		defer close(watchdog)
		ready := lately{within: s.cfg.Systemd.watchdog, at: map[string]time.Time{}}
		s.cfg.Systemd.keepAlive(ctx, func() bool { return ready.all(s.cfg.Components(), time.Now()) })
	}()
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(s.listener) // closing it removes the socket
	if ctx.Err() != nil {
		<-watchdog
		return nil
	}
	return fmt.Errorf("serve status: %w", err)
}

// Handler serves /status, a Report, and /readyz: 200 when ready, else 503 with one line for each component that is not.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.report()) // the client has gone: nobody to tell
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := s.report()
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(summary(r)))
	})
	return mux
}

func (s *Server) report() Report {
	components := s.cfg.Components()
	return Report{
		Mode: s.cfg.Mode, Version: version.Get().Version, PID: os.Getpid(), Started: s.started,
		Ready: supervisor.AllReady(components), Components: components,
	}
}

// summary is "ok", or a line for each component that is not ready.
func summary(r Report) string {
	if r.Ready {
		return "ok\n"
	}
	var b strings.Builder
	for _, c := range r.Components {
		if c.State == supervisor.Ready {
			continue
		}
		fmt.Fprintf(&b, "%s: %s", c.Name, c.State)
		if c.Reason != "" {
			fmt.Fprintf(&b, ": %s", c.Reason)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Get asks the kedge behind the socket at path. The error is ErrNotRunning when nobody answers there.
func Get(ctx context.Context, path string) (Report, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kedge/status", nil)
	if err != nil {
		return Report{}, fmt.Errorf("ask for status: %w", err)
	}
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Report{}, ErrNotRunning
	}
	if err != nil {
		return Report{}, fmt.Errorf("ask for status: %w", err)
	}
	defer resp.Body.Close()
	var r Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return Report{}, fmt.Errorf("read status: %w", err)
	}
	return r, nil
}
