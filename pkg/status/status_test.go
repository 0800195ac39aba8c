package status

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/supervisor"
)

func parts(state supervisor.State) []supervisor.Status {
	return []supervisor.Status{
		{Name: "datastore", State: supervisor.Ready, Since: time.Now()},
		{Name: "kubelet", State: state, Since: time.Now(), Reason: "waiting for containerd"},
	}
}

func start(t *testing.T, cfg Config) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(cfg.Path); err == nil {
			t.Error("the socket was left behind")
		}
	})
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "kedge.sock")
	if _, err := Get(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before start: %v", err)
	}
	start(t, Config{Path: path, Mode: "server", Components: func() []supervisor.Status { return parts(supervisor.Starting) }})
	r, err := Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Ready || r.Mode != "server" || r.PID != os.Getpid() || len(r.Components) != 2 || r.Components[1].Reason == "" {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := New(Config{Path: path, Components: func() []supervisor.Status { return nil }}); err == nil {
		t.Error("took the socket of a living kedge")
	}
}

func TestSocketOfADeadKedgeIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kedge.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Get(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v", err)
	}
	start(t, Config{Path: path, Components: func() []supervisor.Status { return parts(supervisor.Ready) }})
	if r, err := Get(t.Context(), path); err != nil || !r.Ready {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReadyz(t *testing.T) {
	for state, want := range map[supervisor.State]struct {
		code int
		body string
	}{
		supervisor.Ready:    {http.StatusOK, "ok\n"},
		supervisor.NotReady: {http.StatusServiceUnavailable, "kubelet: not ready: waiting for containerd\n"},
	} {
		s := &Server{cfg: Config{Components: func() []supervisor.Status { return parts(state) }}}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code != want.code || w.Body.String() != want.body {
			t.Errorf("%s: %d %q", state, w.Code, w.Body)
		}
	}
}

// manager is the other end of NOTIFY_SOCKET.
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

func receive(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	n, err := conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func TestSystemdIsToldOnceTakenFromTheEnvironment(t *testing.T) {
	conn, path := manager(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", "")
	s := TakeSystemd()
	if os.Getenv("NOTIFY_SOCKET")+os.Getenv("WATCHDOG_USEC") != "" {
		t.Error("the variables are still there")
	}
	if s.watchdog != 30*time.Second {
		t.Errorf("watchdog %s", s.watchdog)
	}
	if err := errors.Join(s.Ready(), s.Stopping()); err != nil {
		t.Fatal(err)
	}
	if a, b := receive(t, conn, time.Second), receive(t, conn, time.Second); a[:7] != "READY=1" || b[:10] != "STOPPING=1" {
		t.Errorf("%q, %q", a, b)
	}
	if err := errors.Join(Systemd{}.Ready(), Systemd{}.Stopping()); err != nil {
		t.Errorf("unmanaged: %v", err)
	}
}

func TestWatchdogIsForThisProcessOnly(t *testing.T) {
	if s := newSystemd("/x", "1000000", "42", 43); s.watchdog != 0 {
		t.Error("took the watchdog of another process")
	}
	if s := newSystemd("/x", "1000000", "42", 42); s.watchdog != time.Second {
		t.Errorf("%s", s.watchdog)
	}
}

func TestWatchdogIsPingedOnlyWhileReady(t *testing.T) {
	conn, path := manager(t)
	var sick atomic.Bool
	start(t, Config{
		Path:    filepath.Join(t.TempDir(), "kedge.sock"),
		Systemd: Systemd{socket: path, watchdog: 20 * time.Millisecond},
		Components: func() []supervisor.Status {
			if sick.Load() {
				return parts(supervisor.NotReady)
			}
			return parts(supervisor.Ready)
		},
	})
	if got := receive(t, conn, 5*time.Second); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	sick.Store(true)
	for receive(t, conn, 100*time.Millisecond) != "" { // those under way
	}
	if got := receive(t, conn, 100*time.Millisecond); got != "" {
		t.Errorf("pinged while not ready: %q", got)
	}
}

// TestReadyLately has parts that are never ready at the same time, and one that stays away.
func TestReadyLately(t *testing.T) {
	begin := time.Now()
	l := lately{within: 5 * time.Minute, at: map[string]time.Time{}}
	look := func(minute int, a, b supervisor.State) bool {
		return l.all([]supervisor.Status{{Name: "a", State: a}, {Name: "b", State: b}, {Name: "c", State: supervisor.Failed, Optional: true}},
			begin.Add(time.Duration(minute)*time.Minute))
	}
	for i, want := range []bool{false, true, true, true} {
		a, b := supervisor.Ready, supervisor.NotReady
		if i%2 == 1 {
			a, b = b, a
		}
		if got := look(i, a, b); got != want {
			t.Errorf("in turn, minute %d: %v", i, got)
		}
	}
	for minute, want := range map[int]bool{4: true, 7: true, 8: false, 30: false} {
		if got := look(minute, supervisor.Ready, supervisor.NotReady); got != want {
			t.Errorf("b was last ready in minute 3, minute %d: %v", minute, got)
		}
	}
	if l.all(nil, begin) {
		t.Error("nothing is ready")
	}
}
