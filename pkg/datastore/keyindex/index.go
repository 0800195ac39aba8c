// Package keyindex holds in memory which revisions every key of the datastore has, never a value.
// It is pure: no files, no goroutines. Only the packages below pkg/datastore may import it.
package keyindex

import (
	"errors"
	"sort"
	"sync"

	"github.com/google/btree"
)

// Errors of reads at a revision; both leave the index as it was.
var (
	// ErrCompacted says that the wanted revision is older than the compaction.
	ErrCompacted = errors.New("revision is compacted")
	// ErrFuture says that the wanted revision has not been written yet.
	ErrFuture = errors.New("revision is in the future")
)

// Rev is one revision of one key. Mod is also the row id of its value.
type Rev struct {
	Mod     int64 // revision that wrote it
	Create  int64 // revision that created the key
	Version int64 // writes since the creation, from 1; 0 marks a deletion
	Lease   int64 // time to live in seconds, 0 for none
}

// Deleted tells whether the revision removed the key.
func (r Rev) Deleted() bool { return r.Version == 0 }

// Entry is one key with one of its revisions.
type Entry struct {
	Key string
	Rev
}

// Change is one revision of a key with the revision it replaced; Prev.Mod is 0 where there was none.
type Change struct {
	Key  string
	Rev  Rev
	Prev Rev
}

// Page is the answer to Range.
type Page struct {
	Entries []Entry // in key order, at most limit
	Count   int64   // all keys in the range, however many were asked for
	Rev     int64   // current revision at the time of the read
}

type item struct {
	key  string
	revs []Rev // ascending by Mod
}

// at returns the newest revision not younger than rev.
func (it *item) at(rev int64) (Rev, bool) {
	n := len(it.revs)
	if it.revs[n-1].Mod <= rev {
		return it.revs[n-1], true
	}
	i := sort.Search(n, func(i int) bool { return it.revs[i].Mod > rev })
	if i == 0 {
		return Rev{}, false
	}
	return it.revs[i-1], true
}

// Index maps keys to their revisions. One goroutine may write, many may read.
type Index struct {
	mu      sync.RWMutex
	tree    *btree.BTreeG[*item]
	rev     int64
	compact int64
}

// New returns an index without keys at revision 0.
func New() *Index {
	return &Index{tree: btree.NewG(32, func(a, b *item) bool { return a.key < b.key })}
}

// Revisions returns the current and the compacted revision.
func (x *Index) Revisions() (current, compacted int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.rev, x.compact
}

// Len returns the number of keys that have at least one revision, deleted ones included.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.tree.Len()
}

// Head returns the newest revision of key, which may be a deletion.
func (x *Index) Head(key string) (Rev, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	it, ok := x.tree.Get(&item{key: key})
	if !ok {
		return Rev{}, false
	}
	return it.revs[len(it.revs)-1], true
}

// Apply adds entries in ascending order of Mod and moves the current revision to rev.
func (x *Index) Apply(entries []Entry, rev int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		it, ok := x.tree.Get(&item{key: e.Key})
		if !ok {
			it = &item{key: e.Key}
			it.revs = append(it.revs, e.Rev)
			x.tree.ReplaceOrInsert(it)
			continue
		}
		it.revs = append(it.revs, e.Rev)
	}
	x.rev = max(x.rev, rev)
}

// Range lists the keys of [key, end) as they were at revision at; 0 means now. An empty end means
// exactly key, "\x00" every key from key on. A limit of 0 or less means all.
func (x *Index) Range(key, end string, at, limit int64) (Page, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	page := Page{Rev: x.rev}
	switch {
	case at > x.rev:
		return page, ErrFuture
	case at > 0 && at < x.compact:
		return page, ErrCompacted
	case at <= 0:
		at = x.rev
	}
	x.scan(key, end, func(it *item) {
		r, ok := it.at(at)
		if !ok || r.Deleted() {
			return
		}
		page.Count++
		if limit <= 0 || page.Count <= limit {
			page.Entries = append(page.Entries, Entry{Key: it.key, Rev: r})
		}
	})
	return page, nil
}

// Changes lists what happened to the keys of [key, end) from revision from up to and including to,
// oldest first, at most limit changes; a limit of 0 or less means all. The second value tells up to
// which revision the list is complete.
func (x *Index) Changes(key, end string, from, to int64, limit int) ([]Change, int64, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if from < x.compact {
		return nil, 0, ErrCompacted
	}
	to = min(to, x.rev)
	var out []Change
	x.scan(key, end, func(it *item) {
		first := sort.Search(len(it.revs), func(i int) bool { return it.revs[i].Mod >= from })
		for i := first; i < len(it.revs) && it.revs[i].Mod <= to; i++ {
			c := Change{Key: it.key, Rev: it.revs[i]}
			if i > 0 {
				c.Prev = it.revs[i-1]
			}
			out = append(out, c)
		}
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Rev.Mod < out[j].Rev.Mod })
	if limit > 0 && len(out) > limit {
		out = out[:limit:limit]
		to = out[limit-1].Rev.Mod
	}
	return out, to, nil
}

// Compact forgets every revision that was replaced or deleted at or before rev and returns their row
// ids in ascending order. Reads below rev fail with ErrCompacted from now on.
func (x *Index) Compact(rev int64) []int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.compact = max(x.compact, rev)
	x.rev = max(x.rev, rev)
	var garbage []int64
	var gone []*item
	x.tree.Ascend(func(it *item) bool {
		keep := sort.Search(len(it.revs), func(i int) bool { return it.revs[i].Mod > rev })
		if keep > 0 && !it.revs[keep-1].Deleted() {
			keep--
		}
		if keep == 0 {
			return true
		}
		for _, r := range it.revs[:keep] {
			garbage = append(garbage, r.Mod)
		}
		if keep == len(it.revs) {
			gone = append(gone, it)
			return true
		}
		it.revs = append([]Rev(nil), it.revs[keep:]...)
		return true
	})
	for _, it := range gone {
		x.tree.Delete(it)
	}
	sort.Slice(garbage, func(i, j int) bool { return garbage[i] < garbage[j] })
	return garbage
}

func (x *Index) scan(key, end string, visit func(*item)) {
	if end == "" {
		if it, ok := x.tree.Get(&item{key: key}); ok {
			visit(it)
		}
		return
	}
	from := &item{key: key}
	all := func(it *item) bool { visit(it); return true }
	if end == "\x00" {
		x.tree.AscendGreaterOrEqual(from, all)
		return
	}
	x.tree.AscendRange(from, &item{key: end}, all)
}

// InRange tells whether key lies in [start, end), with the meanings of end that Range has.
func InRange(key, start, end string) bool {
	switch end {
	case "":
		return key == start
	case "\x00":
		return key >= start
	}
	return key >= start && key < end
}
