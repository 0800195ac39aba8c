package mvcc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key, value string) int64 {
	t.Helper()
	var rev int64
	err := s.Do(t.Context(), len(value), func(tx *Tx) error {
		_, err := tx.Put(key, []byte(value), 0)
		rev = tx.Rev()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestEachRequestHasItsOwnOutcome lets many compare-and-put race for the same keys: of those that expect
// the same revision exactly one may win, also when they are committed together.
func TestEachRequestHasItsOwnOutcome(t *testing.T) {
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "db")})
	defer s.Close()
	refused := errors.New("refused")
	const rounds, rivals = 20, 16
	for round := range rounds {
		key := fmt.Sprint("key", round%3)
		head, _ := s.index.Head(key)
		before, _ := s.Revisions()
		var won, lost, failed sync.Map
		var wg sync.WaitGroup
		for i := range rivals {
			wg.Go(func() {
				err := s.Do(t.Context(), 10, func(tx *Tx) error {
					if now, _ := tx.Head(key); now.Mod != head.Mod {
						lost.Store(i, true)
						return nil
					}
					if _, err := tx.Put(key, []byte(fmt.Sprint(i)), 0); err != nil {
						return err
					}
					if i%2 == 1 { // takes back what it staged
						return refused
					}
					won.Store(i, tx.Rev())
					return nil
				})
				if err != nil {
					failed.Store(i, true)
					if !errors.Is(err, refused) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		count := func(m *sync.Map) (n int) { m.Range(func(any, any) bool { n++; return true }); return n }
		if count(&won) != 1 || count(&won)+count(&lost)+count(&failed) != rivals {
			t.Fatalf("%d won, %d lost, %d refused of %d", count(&won), count(&lost), count(&failed), rivals)
		}
		if after, _ := s.Revisions(); after != before+1 {
			t.Fatalf("revision went from %d to %d: the refused must not use any up", before, after)
		}
	}
}

// TestCommitFailsForOneOnly puts a request that SQLite refuses among others.
func TestCommitFailsForOneOnly(t *testing.T) {
	var published []int64
	s := open(t, Config{
		Path:    filepath.Join(t.TempDir(), "db"),
		Publish: func(events []*mvccpb.Event, rev int64) { published = append(published, rev) },
	})
	running, held := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // keeps the writer busy, so that the next ones come together
		_ = s.Do(t.Context(), 0, func(*Tx) error { close(running); <-held; return nil })
	})
	<-running
	errs := make([]error, 9)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Do(t.Context(), 0, func(tx *Tx) error {
				_, err := tx.Put(fmt.Sprint("k", i), []byte("v"), 0)
				if i == 4 { // a revision that exists already
					tx.rows[len(tx.rows)-1].rev.Mod = 1
				}
				return err
			})
		})
	}
	for len(s.writer.queue) < len(errs) {
		runtime.Gosched() // until all wait
	}
	close(held)
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 4) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(published) == 0 || published[len(published)-1] != 9 {
		t.Errorf("published up to %v, want 9: the failed one must not use a revision up", published)
	}
}

// TestCompactionFreesTheDisk writes, deletes and compacts: the rows must go and the file shrink, while
// others write, and a restart in the middle must go on with it.
func TestCompactionFreesTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, Config{Path: path, Synchronous: "NORMAL"})
	value := strings.Repeat("v", 8000)
	for i := range 4000 {
		put(t, s, fmt.Sprint("key", i%2000), value)
	}
	err := s.Do(t.Context(), 0, func(tx *Tx) error {
		for i := range 1990 {
			if _, err := tx.Delete(fmt.Sprint("key", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rev, _ := s.Revisions()
	before, _ := s.Size()
	if err := s.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // most rows are still there
		t.Fatal(err)
	}
	s = open(t, Config{Path: path, Synchronous: "NORMAL"})
	if now, compacted := s.Revisions(); now != rev || compacted != rev {
		t.Errorf("after the restart revision %d, compacted %d, want %d", now, compacted, rev)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		put(t, s, "other", "x")
		if size, _ := s.Size(); size < before/2 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the file has %d bytes, had %d", size, before)
		}
	}
	page, err := s.Count("", "\x00", 0)
	if err != nil || page.Count != 11 {
		t.Errorf("%d keys, %v", page.Count, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "db")})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(context.Background(), 0, func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want %v", err, ErrClosed)
	}
}

// TestLogStaysSmall writes beside reads that never pause.
func TestLogStaysSmall(t *testing.T) {
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "db"), Synchronous: "NORMAL", WALLimit: 2 << 20})
	defer s.Close()
	value := strings.Repeat("v", 2000)
	for i := range 2000 {
		put(t, s, fmt.Sprintf("key%05d", i), value)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := s.Range("key", "kez", 0, 0, true); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var high int64
	for i := range 1500 {
		put(t, s, fmt.Sprintf("key%05d", i%2000), value)
		_, wal := s.Size()
		high = max(high, wal)
	}
	cancel()
	wg.Wait()
	t.Logf("log at most %d KiB", high>>10)
	if high > 8<<20 {
		t.Errorf("the log grew to %d bytes", high)
	}
}

func TestNextBatch(t *testing.T) {
	for _, c := range []struct {
		batch int
		took  time.Duration
		want  int
	}{
		{100, time.Millisecond, 200}, {100, 3 * time.Millisecond, 100}, {100, 9 * time.Millisecond, 50},
		{minSweep, time.Second, minSweep}, {maxSweep, time.Microsecond, maxSweep},
	} {
		if got := nextBatch(c.batch, c.took); got != c.want {
			t.Errorf("after %d rows in %v: %d, want %d", c.batch, c.took, got, c.want)
		}
	}
}

func TestVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if _, err := Verify(path); !sqlite.Malformed(err) {
		t.Errorf("a missing file: %v", err)
	}
	s := open(t, Config{Path: path})
	rev := put(t, s, "a", "b")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(path); err != nil || got != rev {
		t.Errorf("revision %d, %v, want %d", got, err, rev)
	}
	if err := SkipRevisions(path, 1000); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Path: path})
	defer s.Close()
	if now, compacted := s.Revisions(); now != rev+1000 || compacted != now {
		t.Errorf("revision %d, compacted %d, want %d", now, compacted, rev+1000)
	}
	if _, _, err := s.Range("a", "", rev, 0, true); !errors.Is(err, keyindex.ErrCompacted) {
		t.Errorf("read before the skip: %v", err)
	}
	if kvs, _, err := s.Range("a", "", 0, 0, true); err != nil || string(kvs[0].Value) != "b" {
		t.Errorf("%v, %v", kvs, err)
	}
	if next := put(t, s, "a", "c"); next != rev+1001 {
		t.Errorf("next revision %d", next)
	}
}
