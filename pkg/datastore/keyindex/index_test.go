package keyindex

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

func put(key string, mod, create, version int64) Entry {
	return Entry{Key: key, Rev: Rev{Mod: mod, Create: create, Version: version}}
}

func deleted(key string, mod int64) Entry { return Entry{Key: key, Rev: Rev{Mod: mod}} }

// history is: a created 2, b created 3, a changed 4, b deleted 5, c created 6, b created again 7.
func history() *Index {
	x := New()
	x.Apply([]Entry{put("a", 2, 2, 1), put("b", 3, 3, 1), put("a", 4, 2, 2), deleted("b", 5), put("c", 6, 6, 1), put("b", 7, 7, 1)}, 7)
	return x
}

func TestRange(t *testing.T) {
	cases := []struct {
		name, key, end string
		at, limit      int64
		want           string
		count          int64
		err            error
	}{
		{"now", "a", "d", 0, 0, "a4 b7 c6", 3, nil},
		{"first page", "a", "d", 0, 2, "a4 b7", 3, nil},
		{"while b was deleted", "a", "d", 5, 0, "a4", 1, nil},
		{"before all", "a", "d", 1, 0, "", 0, nil},
		{"early", "a", "d", 3, 0, "a2 b3", 2, nil},
		{"one key", "b", "", 0, 0, "b7", 1, nil},
		{"one key before", "b", "", 4, 0, "b3", 1, nil},
		{"unknown key", "bb", "", 0, 0, "", 0, nil},
		{"from a key on", "b", "\x00", 0, 0, "b7 c6", 2, nil},
		{"end is left out", "a", "c", 0, 0, "a4 b7", 2, nil},
		{"future", "a", "d", 8, 0, "", 0, ErrFuture},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			page, err := history().Range(c.key, c.end, c.at, c.limit)
			got := ""
			for i, e := range page.Entries {
				if i > 0 {
					got += " "
				}
				got += fmt.Sprint(e.Key, e.Mod)
			}
			if got != c.want || page.Count != c.count || !errors.Is(err, c.err) || page.Rev != 7 {
				t.Errorf("got %q of %d at %d, %v; want %q of %d, %v", got, page.Count, page.Rev, err, c.want, c.count, c.err)
			}
		})
	}
}

func TestChanges(t *testing.T) {
	x := history()
	changes, upTo, err := x.Changes("a", "c", 3, 100, 3)
	if err != nil || upTo != 5 || len(changes) != 3 {
		t.Fatalf("%v up to %d, %v", changes, upTo, err)
	}
	if c := changes[1]; c.Key != "a" || c.Rev.Mod != 4 || c.Prev.Mod != 2 {
		t.Errorf("second change %+v", c)
	}
	if c := changes[2]; !c.Rev.Deleted() || c.Prev.Mod != 3 {
		t.Errorf("third change %+v", c)
	}
	if _, upTo, _ = x.Changes("x", "y", 3, 6, 3); upTo != 6 {
		t.Errorf("nothing happened up to %d, want 6", upTo)
	}
	x.Compact(4)
	if _, _, err := x.Changes("a", "c", 3, 7, 0); !errors.Is(err, ErrCompacted) {
		t.Errorf("compacted changes: %v", err)
	}
	if _, _, err := x.Changes("a", "c", 4, 7, 0); err != nil {
		t.Errorf("changes from the compacted revision: %v", err)
	}
}

func TestCompact(t *testing.T) {
	x := history()
	if got := x.Compact(5); !slices.Equal(got, []int64{2, 3, 5}) {
		t.Errorf("garbage %v", got)
	}
	if _, err := x.Range("a", "d", 4, 0); !errors.Is(err, ErrCompacted) {
		t.Errorf("read before the compaction: %v", err)
	}
	if page, err := x.Range("a", "d", 5, 0); err != nil || page.Count != 1 {
		t.Errorf("read at the compaction: %v, %v", page, err)
	}
	if got := x.Compact(5); got != nil {
		t.Errorf("again: %v", got)
	}
}

// TestCompactChangesNoLaterRead compares reads after a compaction with those before, on random histories.
func TestCompactChangesNoLaterRead(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		x, heads := New(), map[string]Rev{}
		for rev := int64(1); rev <= 60; rev++ {
			key := fmt.Sprint(rnd.IntN(8))
			r, head := Rev{Mod: rev}, heads[key]
			switch {
			case head.Deleted():
				r.Create, r.Version = rev, 1
			case rnd.IntN(3) > 0:
				r.Create, r.Version = head.Create, head.Version+1
			}
			heads[key] = r
			x.Apply([]Entry{{key, r}}, rev)
		}
		at := 1 + rnd.Int64N(60)
		var before []Page
		for rev := at; rev <= 60; rev++ {
			page, err := x.Range("", "\x00", rev, 0)
			if err != nil {
				t.Fatal(err)
			}
			before = append(before, page)
		}
		garbage := x.Compact(at)
		if !sort.SliceIsSorted(garbage, func(i, j int) bool { return garbage[i] < garbage[j] }) {
			t.Fatalf("seed %d: garbage %v is not sorted", seed, garbage)
		}
		for i, want := range before {
			page, err := x.Range("", "\x00", at+int64(i), 0)
			if err != nil || !slices.Equal(page.Entries, want.Entries) {
				t.Fatalf("seed %d: compacted to %d, read at %d: %v, want %v", seed, at, at+int64(i), page.Entries, want.Entries)
			}
			for _, e := range page.Entries {
				if slices.Contains(garbage, e.Mod) {
					t.Fatalf("seed %d: %v is garbage", seed, e)
				}
			}
		}
	}
}

func BenchmarkRange10000(b *testing.B) {
	x := New()
	for i := range int64(10_000) {
		x.Apply([]Entry{put(fmt.Sprintf("/registry/pods/default/%06d", i), i+1, i+1, 1)}, i+1)
	}
	for b.Loop() {
		if page, err := x.Range("/registry/", "/registry0", 0, 0); err != nil || page.Count != 10_000 {
			b.Fatal(page.Count, err)
		}
	}
}
