package link

import (
	"context"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// serve answers as a server at an address, or at a free one.
func serve(t *testing.T, address string) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Listener.Close() // replaced
		s.Listener = l
	}
	s.StartTLS()
	return s
}

func await(t *testing.T, l *Link, want State) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		state, _, changed := l.State()
		if state == want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the link is %s and not %s", state, want)
		}
	}
}

func TestLinkComesAndGoes(t *testing.T) {
	s := serve(t, "")
	address := s.Listener.Addr().String()
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	l, err := New(Config{Server: "https://" + address, CA: ca, Patience: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	if l.Await(ctx, time.Minute) {
		t.Error("a link to nobody is up")
	}
	await(t, l, Down)

	s = serve(t, address)
	await(t, l, Up)
	epoch := l.Epoch()
	l.Doubt() // without a reason
	transport, err := l.Transport(Credential{}, false)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(epoch, http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil || resp.Body.Close() != nil || epoch.Err() != nil {
		t.Fatalf("a request: %v; the epoch: %v", err, epoch.Err())
	}

	s.CloseClientConnections()
	s.Close()
	l.Doubt()
	await(t, l, Down)
	if epoch.Err() == nil {
		t.Error("the epoch outlives the link")
	}
	s = serve(t, address)
	defer s.Close()
	await(t, l, Up)
	cancel()
	<-done
}

func TestServerMustBeAURL(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:6443", "http://127.0.0.1:6443"} {
		if _, err := New(Config{Server: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
