package datastore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// smallDisk mounts a file system of a few MiB.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk fills the disk, twice: writes must fail with etcd's error for it, reads go on, nothing
// acknowledged be lost, and writes work again once there is space, without a restart.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "8m")
	ballast := filepath.Join(dir, "ballast")
	d := start(t, datastore.Config{Dir: filepath.Join(dir, "db")})
	c, ctx := newClient(t, d.Endpoint()), t.Context()
	value := strings.Repeat("v", 2000)
	written := 0
	for range 2 {
		fillDisk(t, ballast)
		var err error
		for range 5000 {
			if _, err = c.Put(ctx, fmt.Sprintf("/full/%05d", written), value); err != nil {
				break
			}
			written++
		}
		if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Fatalf("after %d writes: %v, want %v", written, err, rpctypes.ErrNoSpace)
		}
		awaitCount(t, c, written)
		if _, err := datastore.SaveSnapshot(ctx, datastore.Config{Dir: filepath.Join(dir, "db")}, ""); err == nil {
			t.Error("a snapshot cannot fit")
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, fmt.Sprintf("/full/%05d", written), value); err != nil {
			t.Fatalf("there is space again: %v", err)
		}
		written++
		awaitCount(t, c, written)
		// old revisions go, so that the second turn has room
		if _, err := c.Delete(ctx, "/full/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		resp, err := c.Get(ctx, "/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compact(ctx, resp.Header.Revision); err != nil {
			t.Fatal(err)
		}
		written = 0
	}
	mustCreate(t, c, "/full/last", value)
	c.Close()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.With(filepath.Join(dir, "db", "state.db"), sqlite.Check); err != nil {
		t.Fatal(err)
	}
	again := start(t, datastore.Config{Dir: filepath.Join(dir, "db")})
	awaitCount(t, newClient(t, again.Endpoint()), 1)
}

// fillDisk writes a file until less than a MiB is left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for chunk := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = f.Write(chunk)
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, size-1<<20)); err != nil {
		t.Fatal(err)
	}
}

func awaitCount(t *testing.T, c *clientv3.Client, want int) {
	t.Helper()
	resp, err := c.Get(t.Context(), "/full/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) != want {
		t.Fatalf("%d keys, want %d", len(resp.Kvs), want)
	}
}
