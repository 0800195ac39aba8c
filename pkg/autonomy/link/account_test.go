package link

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestRequestsShareAConnection begins many requests at once while there is no connection.
func TestRequestsShareAConnection(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") }))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{Server: server.URL, CA: ca, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := l.Transport(Credential{}, false)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	const requests = 50
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			if err := ask(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := l.Traffic()
	if got.Connections > 2 || got.Requests != requests || got.Sent == 0 || got.Received == 0 { // one that was being made may have come too late
		t.Errorf("%+v", got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(gone); err == nil {
		t.Error("an answer for nobody")
	}
	if err := ask(t.Context()); err != nil {
		t.Error(err)
	}
}
