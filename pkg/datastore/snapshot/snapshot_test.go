package snapshot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
)

func newDatabase(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Database: filepath.Join(dir, "state.db"), Dir: filepath.Join(dir, "snapshots")}
	s, err := mvcc.Open(mvcc.Config{Path: cfg.Database, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), 0, func(tx *mvcc.Tx) error { _, err := tx.Put("a", []byte("b"), 0); return err }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestExpired(t *testing.T) {
	infos := []Info{{Name: "1", Scheduled: true}, {Name: "2"}, {Name: "3", Scheduled: true}, {Name: "4", Scheduled: true}}
	got := Expired(infos, 1)
	if len(got) != 2 || got[0].Name != "1" || got[1].Name != "3" {
		t.Errorf("expired %+v", got)
	}
	if got := Expired(infos, 3); got != nil {
		t.Errorf("expired %+v", got)
	}
}

func TestSaveRefuses(t *testing.T) {
	cfg := newDatabase(t)
	ctx := context.Background()
	for _, name := range []string{"../x", ".hidden", "a/b", "a b", "-x"} {
		if _, err := Save(ctx, cfg, name, false); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
	if _, err := Save(ctx, cfg, "one", false); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(ctx, cfg, "one", false); err == nil {
		t.Error("a snapshot must not be overwritten")
	}
	cfg.Database += ".missing"
	if _, err := Save(ctx, cfg, "two", false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
	if _, err := os.Stat(cfg.Database); err == nil {
		t.Error("saving must not create a database")
	}
	if err := Delete(cfg.Dir, "three"); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	cfg := newDatabase(t)
	info, err := Save(context.Background(), cfg, "", true)
	if err != nil || info.Revision != 2 || !info.Scheduled {
		t.Fatalf("%+v, %v", info, err)
	}
	for path, want := range map[string]os.FileMode{
		cfg.Dir: 0o700, filepath.Join(cfg.Dir, info.Name): 0o700, filepath.Join(cfg.Dir, info.Name, databaseFile): 0o600,
		filepath.Join(cfg.Dir, info.Name, infoFile): 0o600, cfg.Database: 0o600,
	} {
		got, err := os.Stat(path)
		if err != nil || got.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, got.Mode(), err, want)
		}
	}
}

func TestScratchIsNoSnapshot(t *testing.T) {
	cfg := newDatabase(t)
	left := filepath.Join(cfg.Dir, scratch+"old")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if list, err := List(cfg.Dir); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := Save(context.Background(), cfg, "x", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
}
