package boltfile

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func open(t *testing.T, path string, log *slog.Logger) (*File, *string) {
	t.Helper()
	name := new(string)
	f, err := Open(Config{Path: path, Holds: "letters", Log: log, Prepare: func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("meta"))
		if err == nil {
			*name, err = Name(b)
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestItIsMadeWhenNeededAndKeepsItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "letters.db")
	f, name := open(t, path, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(path); err == nil || f.There() {
		t.Error("the file is there")
	}
	must(t, f.Make())
	must(t, f.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put(Key(258), []byte("one")) }))
	must(t, f.Close())
	must(t, f.Close())
	first := *name
	f, name = open(t, path, slog.New(slog.DiscardHandler))
	if *name == "" || *name != first {
		t.Errorf("it was %q and is %q", first, *name)
	}
	must(t, f.View(func(tx *bolt.Tx) error {
		if k, v := tx.Bucket([]byte("meta")).Cursor().First(); Number(k) != 258 || string(v) != "one" {
			t.Errorf("%x, %q", k, v)
		}
		return nil
	}))
}

func TestDamageIsSetAsideAndSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letters.db")
	f, _ := open(t, path, slog.New(slog.DiscardHandler))
	must(t, f.Make())
	must(t, f.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	page := os.Getpagesize()
	for name, damaged := range map[string][]byte{
		"no database": bytes.Repeat([]byte("broken "), 5000), "cut short": data[:len(data)/4], "pages lost": append(bytes.Clone(data[:2*page]), make([]byte, 2*page)...),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "letters.db")
			must(t, os.WriteFile(path, damaged, 0o600))
			var log bytes.Buffer
			f, _ := open(t, path, slog.New(slog.NewTextHandler(&log, nil)))
			if kept, err := filepath.Glob(path + ".damaged-*"); err != nil || len(kept) != 1 || !strings.Contains(log.String(), kept[0]) {
				t.Errorf("%v, %v, log %s", kept, err, log.String())
			}
			must(t, f.Make())
		})
	}
}

func TestAFileThatSomebodyHasIsNotDamaged(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock")
	}
	path := filepath.Join(t.TempDir(), "letters.db")
	f, _ := open(t, path, slog.New(slog.DiscardHandler))
	must(t, f.Make())
	_, err := Open(Config{Path: path, Holds: "letters", Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, bolt.ErrTimeout) {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
