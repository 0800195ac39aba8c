package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/test/database"
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
	token, agent := TokenSettings(cfg)
	if err := join.NewTokenFiles(cfg.DataDir).Ensure(bundle, token, agent); err != nil {
		t.Fatal(err)
	}
	return done(t.Context())
}

func TestServersOfOneDatastore(t *testing.T) {
	socket, _ := database.Start(t)
	endpoint := "unix://" + socket
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
	tokensFollow(t, on, first, second)
}

// tokensFollow changes the token on the first of two servers that run; a third one is off meanwhile.
func tokensFollow(t *testing.T, on func(token string) config.Server, first, second config.Server) {
	t.Helper()
	off := on("secret")
	if err := start(t, off); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, cfg := range []config.Server{first, second} {
		running.Go(func() { _ = NewTokenKeeper(cfg, slog.New(slog.DiscardHandler)).Run(ctx) })
	}
	if _, err := join.NewTokenFiles(first.DataDir).Rotate(false, "fresh"); err != nil {
		t.Fatal(err)
	}
	if err := ShareTokens(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := start(t, on("fresh")); err != nil {
		t.Error(err)
	}
	if err := start(t, on("secret")); err == nil || !strings.Contains(err.Error(), "--token is not that of the cluster") {
		t.Error(err)
	}
	if err := start(t, off); err != nil { // its settings have the old one
		t.Error(err)
	}
	for _, cfg := range []config.Server{first, off, second} {
		for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			got, _, err := join.NewTokenFiles(cfg.DataDir).Secrets()
			if err == nil && got == "fresh" {
				break
			}
			if time.Since(begin) > time.Minute {
				t.Fatalf("%q, %v", got, err)
			}
		}
	}
}

func TestHasOthers(t *testing.T) {
	cfg := server(t, t.TempDir())
	if _, err := HasOthers(cfg); err == nil || !strings.Contains(err.Error(), "datastore-endpoint") {
		t.Error(err)
	}
	if err := os.MkdirAll(dbDir(cfg.DataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if others, err := HasOthers(cfg); err != nil || others {
		t.Error(others, err)
	}
	cfg.DatastoreEndpoint = "https://127.0.0.1:1"
	if others, err := HasOthers(cfg); err != nil || !others {
		t.Error(others, err)
	}
}
