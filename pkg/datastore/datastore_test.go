package datastore_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

var _ supervisor.Component = (*datastore.Datastore)(nil)

// running is a datastore under test.
type running struct {
	*datastore.Datastore
	stop func() error
}

// start runs a datastore on dir and awaits that it is ready. It is stopped with the test, if not before.
func start(t testing.TB, cfg datastore.Config) *running {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = socketPath(t)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	d, err := datastore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	r := &running{Datastore: d}
	stopped := false
	r.stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-done
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := d.Ready(ctx)
		if err == nil {
			return r
		}
		select {
		case err := <-done:
			stopped = true
			t.Fatalf("datastore ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("datastore is not ready: %v", err)
		}
	}
}

// socketDir makes a directory with a short path, because unix sockets allow 107 bytes.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ds") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func socketPath(t testing.TB) string { return filepath.Join(socketDir(t), "s") }

func newClient(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// create does what the apiserver does for a new object and returns the revision.
func create(ctx context.Context, c *clientv3.Client, key, value string) (int64, error) {
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value)).Commit()
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("create %s: exists", key)
	}
	return resp.Header.Revision, nil
}

func mustCreate(t testing.TB, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	rev, err := create(t.Context(), c, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first := start(t, datastore.Config{Dir: dir})
	c := newClient(t, first.Endpoint())
	for i := range 100 {
		mustCreate(t, c, fmt.Sprintf("/registry/pods/%03d", i), fmt.Sprint(i))
	}
	if _, err := c.Delete(t.Context(), "/registry/pods/099"); err != nil {
		t.Fatal(err)
	}
	before, err := c.Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, datastore.Config{Dir: dir})
	after, err := newClient(t, second.Endpoint()).Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if before.Header.Revision != after.Header.Revision || after.Count != 99 {
		t.Fatalf("revision %d, %d keys; want %d, 99", after.Header.Revision, after.Count, before.Header.Revision)
	}
	for i, kv := range after.Kvs {
		if kv.String() != before.Kvs[i].String() {
			t.Fatalf("key %d is %v, was %v", i, kv, before.Kvs[i])
		}
	}
}
