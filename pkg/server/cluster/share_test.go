package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/join"
)

// start does what a server with a shared datastore does before its parts start.
func start(t *testing.T, cfg config.Server) error {
	t.Helper()
	done, err := Prepare(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s, err := certs.EnsureServer(certs.ServerConfig{DataDir: cfg.DataDir, APIServerURL: "https://127.0.0.1:6443"})
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, err := s.CABundles()
	if err != nil {
		t.Fatal(err)
	}
	if err := join.NewTokenFiles(cfg.DataDir).Ensure(bundle, cfg.Token, ""); err != nil {
		t.Fatal(err)
	}
	return done(t.Context())
}

// database is an etcd of somebody else, on a socket.
func database(t *testing.T) string {
	t.Helper()
	s, err := certs.EnsureServer(certs.ServerConfig{DataDir: t.TempDir(), APIServerURL: "https://127.0.0.1:6443", PeerIPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	sockets, err := os.MkdirTemp("", "share")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	m, err := etcd.New(etcd.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), Socket: filepath.Join(sockets, "s"), Node: "db", PeerURL: "https://" + free.Addr().String(),
		CAFile: s.PeerCA.Cert, CertFile: s.Peer.Cert, KeyFile: s.Peer.Key, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for begin := time.Now(); m.Ready(ctx) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal(m.Ready(ctx))
		}
	}
	return m.Endpoint()
}

func TestServersOfOneDatastore(t *testing.T) {
	endpoint := database(t)
	on := func(token string) config.Server {
		cfg := server(t, t.TempDir())
		cfg.DatastoreEndpoint, cfg.Token = endpoint, token
		return cfg
	}
	first, second := on("secret"), on("secret")
	if err := start(t, first); err != nil {
		t.Fatal(err)
	}
	if err := start(t, second); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{certs.NewServerPaths("").ServerCA.Key, certs.NewServerPaths("").ServiceKey, "server/agent-token"} {
		a, errA := os.ReadFile(filepath.Join(first.DataDir, path))
		b, errB := os.ReadFile(filepath.Join(second.DataDir, path))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, %v", path, errA, errB)
		}
	}
	if err := start(t, first); err != nil {
		t.Errorf("a second start: %v", err)
	}
	if err := start(t, on("wrong")); err == nil || !strings.Contains(err.Error(), "--token is not that of the cluster") {
		t.Error(err)
	}
	if err := start(t, on("")); err == nil || !strings.Contains(err.Error(), "--token is not set") {
		t.Error(err)
	}
	if _, err := join.NewTokenFiles(first.DataDir).Rotate(false, "fresh"); err != nil {
		t.Fatal(err)
	}
	first.Token = ""
	if err := Reseal(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := start(t, on("fresh")); err != nil {
		t.Error(err)
	}
}
