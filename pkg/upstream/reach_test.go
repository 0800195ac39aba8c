package upstream

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
)

func TestReachFindsAnyServer(t *testing.T) {
	one := serve(t, "one", "127.0.0.1:0")
	list := open(t, filepath.Join(t.TempDir(), "servers.json"), "https://127.0.0.1:1", one.url())
	b, err := NewBalancer(BalancerConfig{Listen: "127.0.0.1:0", Servers: list, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	one.kill()
	if err := b.Reach(t.Context()); err == nil {
		t.Error("nobody was reached")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Reach(gone); err == nil {
		t.Error("reached for nobody")
	}
}

func TestWhoHasLeft(t *testing.T) {
	far, near := connected(t)
	if _, err := far.Write([]byte("hello")); err != nil || left(near) {
		t.Errorf("left, %v", err)
	}
	_ = far.Close()
	await(t, "the client to have left", func() bool { return left(near) })
}

// connected are the two ends of a connection on loopback.
func connected(t *testing.T) (far, near net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = far.Close()
		_ = near.Close()
	})
	return far, near
}
