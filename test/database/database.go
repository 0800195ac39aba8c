// Package database runs an etcd of somebody else in the process of a test, for servers with a datastore of their own choice. Tests may import it; the
// product never does.
package database

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
)

// Start runs an etcd until the test ends, and returns the path of its socket, and certificates for one that serves it on these addresses. It is ready.
func Start(t *testing.T, addresses ...net.IP) (socket string, files *certs.Server) {
	t.Helper()
	files, err := certs.EnsureServer(certs.ServerConfig{
		DataDir: t.TempDir(), APIServerURL: "https://127.0.0.1:6443", PeerIPs: append([]net.IP{net.IPv4(127, 0, 0, 1)}, addresses...),
	})
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()                           // for the etcd
	sockets, err := os.MkdirTemp("", "socket") //nolint:usetesting // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	m, err := etcd.New(etcd.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), Socket: filepath.Join(sockets, "s"), Node: "db", PeerURL: "https://" + free.Addr().String(),
		CAFile: files.PeerCA.Cert, CertFile: files.Peer.Cert, KeyFile: files.Peer.Key, Log: slog.New(slog.DiscardHandler),
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
	for deadline := time.After(time.Minute); m.Ready(ctx) != nil; {
		select {
		case <-deadline:
			t.Fatal(m.Ready(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return filepath.Join(sockets, "s"), files
}
