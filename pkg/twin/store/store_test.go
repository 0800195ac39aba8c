package store

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsMadeBeforeSomethingIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "s.db")
	s := open(t, path)
	must(t, s.Each(Twins, func(string, []byte) error { t.Error("there is something"); return nil }))
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is there")
	}
	must(t, s.Write(Change{Twins, "a", []byte("1")}))
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestWhatIsTheSameIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	must(t, s.Write(Change{Twins, "a", []byte("1")}))
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, s.Write(Change{Twins, "a", []byte("1")}, Change{Twins, "gone", nil}))
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
}

func TestBacklogKeepsOrderAndBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	var last uint64
	for range 10 {
		_, n, err := s.Sequence()
		must(t, err)
		if n <= last {
			t.Fatalf("%d after %d", n, last)
		}
		last = n
		_, err = s.Append([]Report{{n, make([]byte, 100)}}, 500)
		must(t, err)
	}
	waiting, err := s.Oldest(100)
	must(t, err)
	if len(waiting) != 5 || waiting[4].Sequence != last || waiting[0].Sequence != last-4 || s.Waiting() != 500 {
		t.Errorf("%d wait, %d bytes", len(waiting), s.Waiting())
	}
	must(t, s.Close())
	s = open(t, path)
	if s.Waiting() != 500 {
		t.Errorf("%d bytes wait after a restart", s.Waiting())
	}
	if _, n, err := s.Sequence(); err != nil || n <= last {
		t.Errorf("number %d after a restart, after %d, %v", n, last, err)
	}
	must(t, s.Remove([]uint64{waiting[0].Sequence, waiting[1].Sequence}))
	if rest, err := s.Oldest(1); err != nil || rest[0].Sequence != waiting[2].Sequence || s.Waiting() != 300 {
		t.Errorf("%v, %v", rest, err)
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	must(t, os.WriteFile(path, bytes.Repeat([]byte("broken"), 5000), 0o600))
	s := open(t, path)
	must(t, s.Write(Change{Twins, "a", []byte("1")}))
	if kept, err := filepath.Glob(path + ".damaged-*"); err != nil || len(kept) != 1 {
		t.Errorf("%v, %v", kept, err)
	}
}
