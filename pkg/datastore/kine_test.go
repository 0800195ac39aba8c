//go:build !cgo

// With cgo kine uses another SQLite driver, which is not among our modules.

package datastore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/k3s-io/kine/pkg/drivers"
	kinesqlite "github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
)

// openKine opens a database with kine v0.16.4, as k3s does.
func openKine(ctx context.Context, path string) (server.Backend, error) {
	_, backend, err := kinesqlite.New(ctx, &sync.WaitGroup{}, &drivers.Config{
		DataSourceName: path + "?" + kinesqlite.DefaultParams, CompactMinRetain: 1, CompactBatchSize: 1000, PollBatchSize: 500,
	})
	if err != nil {
		return nil, err
	}
	return backend, backend.Start(ctx)
}

// TestKineWriter is no test: TestDatabaseOfKine runs it in a process of its own, because kine leaves a
// connection open that holds locks as long as its process lives.
func TestKineWriter(t *testing.T) {
	path := os.Getenv("KEDGE_TEST_KINE")
	if path == "" {
		t.Skip("only for TestDatabaseOfKine")
	}
	ctx := t.Context()
	kine, err := openKine(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		rev, err := kine.Create(ctx, fmt.Sprintf("/k/%d", i), []byte("one"), 0)
		if err == nil && i == 5 {
			_, _, _, err = kine.Update(ctx, "/k/5", []byte("two"), rev, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := kine.Delete(ctx, "/k/9", 0); err != nil {
		t.Fatal(err)
	}
}

// TestDatabaseOfKine takes over a database that kine wrote, and gives it back. Kine's own two keys come
// first: revision 1 and 2.
func TestDatabaseOfKine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	ctx := t.Context()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKineWriter$")
	cmd.Env = append(os.Environ(), "KEDGE_TEST_KINE="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const last, second = 14, 9

	d := start(t, datastore.Config{Dir: dir})
	c := newClient(t, d.Endpoint())
	resp, err := c.Get(ctx, "/k/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	five := resp.Kvs[5]
	if resp.Header.Revision != last || len(resp.Kvs) != 9 || string(five.Value) != "two" || five.Version != 2 ||
		five.ModRevision != second || five.CreateRevision != second-1 {
		t.Fatalf("revision %d, %d keys, %v", resp.Header.Revision, len(resp.Kvs), five)
	}
	mustCreate(t, c, "/k/new", "three")
	if _, err := c.Put(ctx, "/k/5", "four"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	kine, err := openKine(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	rev, kvs, err := kine.List(ctx, "/k/", "/k0", 0, 0, false)
	if err != nil || rev != last+2 || len(kvs) != 10 || string(kvs[5].Value) != "four" || kvs[5].CreateRevision != second-1 {
		t.Fatalf("kine reads revision %d, %d keys, %v", rev, len(kvs), err)
	}
	if _, err := kine.Create(ctx, "/k/back", []byte("five"), 0); err != nil {
		t.Fatal(err)
	}
}
