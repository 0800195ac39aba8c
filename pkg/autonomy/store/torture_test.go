package store

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestTouchedWhileOpen has somebody remove, replace, cut, empty and overwrite the file of a store that is in use: the next Sync says so and writes all
// of it anew.
func TestTouchedWhileOpen(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".other", []byte("of another node"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".other", path)
		},
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 40) },
		"overwritten": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			clear(data[len(data)/2:])
			return os.WriteFile(path, data, 0o600)
		},
	} {
		path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
		st, s := open(t, path, key(1), log)
		for i := range 50 {
			s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i), Value: []byte("value")})
			mustSync(t, st)
		}
		if log.Len() > 0 {
			t.Fatalf("%s: log before: %s", name, log)
		}
		if err := touch(path); err != nil {
			t.Fatal(err)
		}
		mustSync(t, st) // with nothing to write
		if n := strings.Count(log.String(), "somebody else touched"); n != 1 {
			t.Errorf("%s: said %d times: %s", name, n, log)
		}
		if _, found := open(t, path, key(1), &bytes.Buffer{}); !maps.Equal(found, s) {
			t.Errorf("%s: %d values of %d are on the disk again", name, len(found), len(s))
		}
		log.Reset()
		s.write(st, Entry{Bucket: "a", Key: "after", Value: []byte("value")})
		mustSync(t, st)
		if _, found := open(t, path, key(1), &bytes.Buffer{}); !maps.Equal(found, s) || log.Len() > 0 {
			t.Errorf("%s: afterwards %d values of %d, log %s", name, len(found), len(s), log)
		}
	}
}

// TestBitFlips turns single bits at random places: what is found then was written at some time under that key, at most the record that was hit is
// missing, and that is said. Only the length of the file's last record may go without a word: it looks like a write that was torn.
func TestBitFlips(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	st, s := open(t, path, key(1), &bytes.Buffer{})
	mustSync(t, st)
	written := map[string]bool{}
	for i := range 60 {
		e := Entry{Bucket: "a", Key: strconv.Itoa(i % 20), Value: []byte("value " + strconv.Itoa(i))}
		s.write(st, e)
		written[e.Key+"="+string(e.Value)] = true
		mustSync(t, st)
	}
	lastSize := st.size
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 150 {
		at, bit := rand.IntN(len(whole)), byte(1)<<rand.IntN(8)
		hurt := bytes.Clone(whole)
		hurt[at] ^= bit
		if err := os.WriteFile(path, hurt, 0o600); err != nil {
			t.Fatal(err)
		}
		log := &bytes.Buffer{}
		again, found := open(t, path, key(1), log)
		for k, v := range found {
			if !written[strings.TrimPrefix(k, "a ")+"="+v] {
				t.Fatalf("bit %d of byte %d: %s is %q, which nobody wrote", bit, at, k, v)
			}
		}
		last := at >= int(lastSize)-80
		if len(found) < len(s)-1 && at >= len(fileHeader) || log.Len() == 0 && !last {
			t.Fatalf("bit %d of byte %d: %d values of %d, log %q", bit, at, len(found), len(s), log)
		}
		if log.Len() > 0 && again.Lost() == "" {
			t.Fatalf("bit %d of byte %d: what is lost is in the log only: %s", bit, at, log)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostAndTrouble checks what a store says about itself.
func TestLostAndTrouble(t *testing.T) {
	dir := t.TempDir()
	path, log := filepath.Join(dir, "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	if st.Lost() != "there was no store" || log.Len() > 0 {
		t.Errorf("a new one: %q, log %s", st.Lost(), log)
	}
	s.write(st, Entry{Bucket: "a", Key: "k", Value: []byte("v")})
	mustSync(t, st)
	if again, _ := open(t, path, key(1), log); again.Lost() != "" {
		t.Errorf("a good one: %q", again.Lost())
	}
	if other, _ := open(t, path, key(2), &bytes.Buffer{}); !strings.Contains(other.Lost(), "another node") {
		t.Errorf("one of another node: %q", other.Lost())
	}
	if err := os.RemoveAll(dir); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	s.write(st, Entry{Bucket: "a", Key: "k2", Value: []byte("v")})
	if err := st.Sync(); err == nil || st.Trouble() == "" {
		t.Errorf("without its directory: %v, %q", err, st.Trouble())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mustSync(t, st)
	if _, found := open(t, path, key(1), &bytes.Buffer{}); !maps.Equal(found, s) || st.Trouble() != "" {
		t.Errorf("with it again: %d values, %q", len(found), st.Trouble())
	}
}
