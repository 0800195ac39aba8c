package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
)

func TestSnapshotRestoreBringsFilesBack(t *testing.T) {
	dir, secrets := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(secrets, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(secrets, "tls", "ca.key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(key, link); err != nil {
		t.Fatal(err)
	}
	cfg := datastore.Config{Dir: dir, SnapshotFiles: []string{link, secrets, "/does/not/exist"}}
	populate(t, cfg, 30, "mine")
	populate(t, cfg, 40, "")
	if err := os.WriteFile(key, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := start(t, cfg)
	if _, err := datastore.RestoreSnapshot(cfg, "mine", true); err == nil || !strings.Contains(err.Error(), "another kedge") {
		t.Fatalf("restore under a running datastore: %v", err)
	}
	if err := running.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := datastore.RestoreSnapshot(cfg, "mine", true); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(key)
	info, serr := os.Stat(key)
	if err != nil || serr != nil || string(content) != "secret" || info.Mode().Perm() != 0o600 {
		t.Fatalf("file %q, %v, %v", content, err, serr)
	}
	d := start(t, cfg)
	if keys, _ := countKeys(t, d.Endpoint()); keys != 30 || d.Recovery() != nil {
		t.Fatalf("%d keys", keys)
	}
	// who knew the newer state must read everything anew
	late := <-newClient(t, d.Endpoint()).Watch(t.Context(), "/k/", clientv3.WithPrefix(), clientv3.WithRev(50))
	if !errors.Is(late.Err(), rpctypes.ErrCompacted) {
		t.Fatalf("watch from before the restore: %v", late.Err())
	}
	list, err := datastore.ListSnapshots(cfg)
	if err != nil || len(list) != 1 || list[0].Revision == 0 || len(list[0].Files) != 1 {
		t.Fatalf("snapshots %+v, %v", list, err)
	}
	if err := datastore.DeleteSnapshot(cfg, "mine"); err != nil {
		t.Fatal(err)
	}
	if _, err := datastore.RestoreSnapshot(cfg, "../mine", false); err == nil {
		t.Fatal("a name must not leave the directory")
	}
}

// TestSnapshotUnderLoad takes snapshots while others write; each must be whole.
func TestSnapshotUnderLoad(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir()}
	d := start(t, cfg)
	c := newClient(t, d.Endpoint())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = c.Put(ctx, fmt.Sprintf("/k/%d-%d", w, i%50), fmt.Sprint(i))
			}
		})
	}
	var last int64
	for i := range 5 {
		info, err := datastore.SaveSnapshot(ctx, cfg, fmt.Sprint("s", i))
		if err != nil || info.Revision <= last {
			t.Fatalf("snapshot %+v after revision %d, %v", info, last, err)
		}
		last = info.Revision
		if _, err := c.Put(ctx, "/k/between", "x"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestScheduledSnapshots(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir(), SnapshotInterval: 30 * time.Millisecond, SnapshotKeep: 2}
	d := start(t, cfg)
	if _, err := datastore.SaveSnapshot(t.Context(), cfg, "by-hand"); err != nil {
		t.Fatal(err)
	}
	var newest string
	for taken, deadline := 0, time.Now().Add(20*time.Second); taken < 5; {
		list, err := datastore.ListSnapshots(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 4 { // two, one that is just added, and the one taken by hand
			t.Fatalf("%d snapshots are kept", len(list))
		}
		if last := list[len(list)-1]; last.Scheduled && last.Name != newest {
			newest = last.Name
			taken++
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d snapshots were taken", taken)
		}
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := datastore.RestoreSnapshot(cfg, "by-hand", false); err != nil {
		t.Errorf("the snapshot taken by hand is not kept: %v", err)
	}
}
