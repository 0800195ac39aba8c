package datastore_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// runFails runs a datastore that cannot start and returns its error and its log.
func runFails(t *testing.T, cfg datastore.Config) (error, string) {
	t.Helper()
	var logs bytes.Buffer
	cfg.Socket, cfg.Log = socketPath(t), slog.New(slog.NewTextHandler(&logs, nil))
	d, err := datastore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err = d.Run(t.Context()); err == nil {
		t.Fatal("started")
	}
	return err, logs.String()
}

// populate runs a datastore once, with n keys under /k/, and takes a snapshot if it gets a name.
func populate(t *testing.T, cfg datastore.Config, n int, snapshot string) {
	t.Helper()
	d := start(t, cfg)
	c := newClient(t, d.Endpoint())
	for i := range n {
		if _, err := c.Put(t.Context(), fmt.Sprintf("/k/%05d", i), strings.Repeat("v", 300)); err != nil {
			t.Fatal(err)
		}
	}
	if snapshot != "" {
		if _, err := datastore.SaveSnapshot(t.Context(), cfg, snapshot); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
}

func countKeys(t *testing.T, endpoint string) (keys, revision int64) {
	t.Helper()
	resp, err := newClient(t, endpoint).Get(t.Context(), "/k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count, resp.Header.Revision
}

func TestNewerDatabaseIsRefusedUntouched(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir()}
	populate(t, cfg, 10, "")
	path := filepath.Join(cfg.Dir, "state.db")
	if err := sqlite.With(path, func(c *sqlite.Conn) error {
		return c.Exec("PRAGMA user_version = 99")
	}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	err, _ = runFails(t, cfg)
	if !errors.Is(err, mvcc.ErrNewer) {
		t.Fatalf("%v, want %v", err, mvcc.ErrNewer)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatal("the file has changed")
	}
}

func TestDamagedDatabaseGoesOnFromSnapshot(t *testing.T) {
	damages := map[string]func(path string) error{
		"gone":      os.Remove,
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"cut":       func(path string) error { return os.Truncate(path, 40960) },
		"no header": func(path string) error { return overwrite(path, 0, make([]byte, 100)) },
		"garbage": func(path string) error {
			return overwrite(path, 8192, bytes.Repeat([]byte{0xaa}, 30000))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			cfg := datastore.Config{Dir: t.TempDir()}
			populate(t, cfg, 200, "good")
			populate(t, cfg, 210, "")
			if err := damage(filepath.Join(cfg.Dir, "state.db")); err != nil {
				t.Fatal(err)
			}
			var logs bytes.Buffer
			cfg.Log = slog.New(slog.NewTextHandler(&logs, nil))
			d := start(t, cfg)
			keys, revision := countKeys(t, d.Endpoint())
			if keys != 200 || revision < 10_000_000 {
				t.Errorf("%d keys at revision %d, want the snapshot's 200 at one nobody has seen", keys, revision)
			}
			r := d.Recovery()
			if r == nil || r.Snapshot.Name != "good" || !strings.Contains(logs.String(), "level=ERROR") {
				t.Errorf("recovery %+v must be reported; log:\n%s", r, logs.String())
			}
			if _, err := os.Stat(r.Kept); err != nil {
				t.Errorf("the damaged files are not kept: %v", err)
			}
		})
	}
}

func TestDamagedDatabaseWithoutSnapshotStaysAsItIs(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir()}
	populate(t, cfg, 10, "")
	path := filepath.Join(cfg.Dir, "state.db")
	if err := overwrite(path, 0, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err, _ := runFails(t, cfg)
		if !sqlite.Malformed(err) || !strings.Contains(err.Error(), "no usable snapshot") {
			t.Fatalf("error %v must say what is wrong and what to do", err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("the database must stay: %v", err)
		}
	}
}

func TestBadSnapshotIsPassedOver(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir()}
	populate(t, cfg, 10, "older")
	populate(t, cfg, 20, "newer")
	if err := overwrite(filepath.Join(cfg.Dir, "snapshots", "newer", "state.db"), 5000, []byte("bits")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.Dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	d := start(t, cfg)
	if keys, _ := countKeys(t, d.Endpoint()); keys != 10 || d.Recovery().Snapshot.Name != "older" {
		t.Fatalf("%d keys from %+v", keys, d.Recovery())
	}
}

var bitFlips = flag.Int("bit-flips", 40, "how many bits TestBitFlips changes, one at a time")

// TestBitFlips changes single bits of a database of which a snapshot exists: the damage must be harmless or
// be repaired by the start, or by the next one, from the snapshot's values or from all of it.
func TestBitFlips(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	populate(t, cfg, 300, "good")
	path := filepath.Join(cfg.Dir, "state.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, rows := 0, 0
	for range *bitFlips {
		broken := bytes.Clone(whole)
		// not in the file's header, where a bit may also mean a newer version, which is refused
		at, bit := 100+rand.IntN(len(broken)-100), rand.IntN(8)
		broken[at] ^= byte(1 << bit)
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		d := start(t, cfg)
		if r := d.Recovery(); r != nil {
			found++
			rows += len(r.Repairs)
		}
		// a flip in the search tree of the file may show only when a value is looked up
		if err := readAll(t, d.Endpoint()); errors.Is(err, rpctypes.ErrCorrupt) {
			found++
			if err := d.stop(); !sqlite.Malformed(err) {
				t.Errorf("the datastore ended with %v", err)
			}
			d = start(t, cfg)
			if err := readAll(t, d.Endpoint()); err != nil || d.Recovery() == nil {
				t.Errorf("the next start recovered %+v, read: %v", d.Recovery(), err)
			}
		} else if err != nil {
			t.Error(err)
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("bit %d of byte %d, page %d; recovery %+v", bit, at, at/4096, d.Recovery())
		}
	}
	t.Logf("of %d flips %d mattered; %d rows were taken from the snapshot", *bitFlips, found, rows)
	if rows == 0 {
		t.Error("no row was repaired")
	}
}

// TestDamageWhileRunning changes a value under a running datastore: the read must fail, the datastore end,
// and the next start repair it.
func TestDamageWhileRunning(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	populate(t, cfg, 300, "good")
	path := filepath.Join(cfg.Dir, "state.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, cfg)
	at := bytes.LastIndex(whole, []byte("vvvv"))
	if err := overwrite(path, int64(at), []byte("w")); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, d.Endpoint()); !errors.Is(err, rpctypes.ErrCorrupt) {
		t.Errorf("read: %v, want %v", err, rpctypes.ErrCorrupt)
	}
	if err := d.stop(); !sqlite.Malformed(err) {
		t.Errorf("the datastore ended with %v", err)
	}
	d = start(t, cfg)
	if r := d.Recovery(); r == nil || len(r.Repairs) != 1 || r.Repairs[0].From == "" {
		t.Errorf("recovery %+v", r)
	}
	if err := readAll(t, d.Endpoint()); err != nil {
		t.Error(err)
	}
}

// readAll reads every key of populate(300) and checks each value.
func readAll(t *testing.T, endpoint string) error {
	t.Helper()
	c := newClient(t, endpoint)
	defer c.Close()
	resp, err := c.Get(t.Context(), "/k/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for i, kv := range resp.Kvs {
		if string(kv.Key) != fmt.Sprintf("/k/%05d", i) || string(kv.Value) != strings.Repeat("v", 300) {
			t.Errorf("key %d is %s with value %.20s…", i, kv.Key, kv.Value)
		}
	}
	if len(resp.Kvs) != 300 {
		t.Errorf("%d keys", len(resp.Kvs))
	}
	return nil
}

// TestChangedValueWithoutCopy changes a value that no snapshot has: the key must go back to the value before,
// or away, and everything else stay.
func TestChangedValueWithoutCopy(t *testing.T) {
	cfg := datastore.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	d := start(t, cfg)
	c := newClient(t, d.Endpoint())
	for _, kv := range [][2]string{{"/k/a", "first"}, {"/k/a", "second"}, {"/k/b", "only"}, {"/k/c", "other"}} {
		if _, err := c.Put(t.Context(), kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, "state.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Replace(bytes.Replace(whole, []byte("second"), []byte("sekond"), 1), []byte("only"), []byte("onty"), 1)
	if err := os.WriteFile(path, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	d = start(t, cfg)
	resp, err := newClient(t, d.Endpoint()).Get(t.Context(), "/k/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 2 || string(resp.Kvs[0].Value) != "first" || string(resp.Kvs[1].Value) != "other" {
		t.Fatalf("after the repair: %v, %v", resp, err)
	}
	if r := d.Recovery(); r == nil || len(r.Repairs) != 2 || r.Repairs[0].From != "" || resp.Header.Revision < 1000 {
		t.Errorf("recovery %+v at revision %d", r, resp.Header.Revision)
	}
}

func overwrite(path string, at int64, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, at)
	return errors.Join(err, f.Close())
}
