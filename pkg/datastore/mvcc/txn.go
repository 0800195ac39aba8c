package mvcc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// row is one staged revision of a key.
type row struct {
	key    string
	rev    keyindex.Rev
	value  []byte
	prev   keyindex.Rev     // the revision before it, a deletion included; Mod 0 if there was none
	prevKV *mvccpb.KeyValue // nil if the key did not exist
	older  *row             // what heads had for the key before
}

func (r *row) event() *mvccpb.Event {
	if r.rev.Deleted() {
		return &mvccpb.Event{
			Type: mvccpb.DELETE, PrevKv: r.prevKV,
			Kv: &mvccpb.KeyValue{Key: []byte(r.key), ModRevision: r.rev.Mod},
		}
	}
	return &mvccpb.Event{Kv: r.keyValue(), PrevKv: r.prevKV}
}

func (r *row) keyValue() *mvccpb.KeyValue {
	return keyValue(keyindex.Entry{Key: r.key, Rev: r.rev}, r.value)
}

// Tx is the state a Txn sees and changes: the committed keys and everything staged before in the same
// commit. The first error of the database ends the whole commit.
type Tx struct {
	w         *writer
	rev       int64
	compacted int64
	compactTo int64
	rows      []*row
	heads     map[string]*row
	begun     bool
	err       error
}

// Rev returns the revision of the last write staged or, without one, committed.
func (tx *Tx) Rev() int64 { return tx.rev }

// Head returns the newest revision of key, and whether the key exists.
func (tx *Tx) Head(key string) (keyindex.Rev, bool) {
	r, _ := tx.head(key)
	return r, r.Mod > 0 && !r.Deleted()
}

func (tx *Tx) head(key string) (keyindex.Rev, *row) {
	if r, ok := tx.heads[key]; ok && r != nil {
		return r.rev, r
	}
	r, _ := tx.w.s.index.Head(key)
	return r, nil
}

// Get returns the key with its value, or nil.
func (tx *Tx) Get(key string) (*mvccpb.KeyValue, error) {
	rev, staged := tx.head(key)
	switch {
	case rev.Mod == 0 || rev.Deleted():
		return nil, nil
	case staged != nil:
		return staged.keyValue(), nil
	}
	kv := keyValue(keyindex.Entry{Key: key, Rev: rev}, nil)
	if tx.err = fillOne(tx.w.c, kv); errors.Is(tx.err, errGone) {
		tx.err = fmt.Errorf("%w: a value is missing", sqlite.ErrDamaged) // only the writer itself removes rows
	}
	if tx.err != nil {
		return nil, tx.err
	}
	return kv, nil
}

// Keys returns the existing keys of [key, end) in order.
func (tx *Tx) Keys(key, end string) ([]string, error) {
	if end == "" {
		if _, ok := tx.Head(key); ok {
			return []string{key}, nil
		}
		return nil, nil
	}
	page, err := tx.w.s.index.Range(key, end, 0, 0)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range page.Entries {
		if tx.heads[e.Key] == nil {
			keys = append(keys, e.Key)
		}
	}
	for k, r := range tx.heads {
		if r != nil && !r.rev.Deleted() && keyindex.InRange(k, key, end) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, strings.Compare)
	return keys, nil
}

// Put stages a new value for key and returns what it replaces, or nil.
func (tx *Tx) Put(key string, value []byte, lease int64) (*mvccpb.KeyValue, error) {
	return tx.stage(key, func(prev keyindex.Rev, exists bool) keyindex.Rev {
		if !exists {
			return keyindex.Rev{Mod: tx.rev, Create: tx.rev, Version: 1, Lease: lease}
		}
		return keyindex.Rev{Mod: tx.rev, Create: prev.Create, Version: prev.Version + 1, Lease: lease}
	}, value)
}

// Delete stages the removal of an existing key and returns what it removes, or nil if there was none.
func (tx *Tx) Delete(key string) (*mvccpb.KeyValue, error) {
	if _, ok := tx.Head(key); !ok {
		return nil, nil
	}
	return tx.stage(key, func(keyindex.Rev, bool) keyindex.Rev { return keyindex.Rev{Mod: tx.rev} }, nil)
}

func (tx *Tx) stage(key string, next func(prev keyindex.Rev, exists bool) keyindex.Rev, value []byte) (*mvccpb.KeyValue, error) {
	if !tx.begin() {
		return nil, tx.err
	}
	prevKV, err := tx.Get(key)
	if err != nil {
		return nil, err
	}
	prev, older := tx.head(key)
	tx.rev++
	r := &row{key: key, value: value, prev: prev, prevKV: prevKV, older: older}
	r.rev = next(prev, prevKV != nil)
	tx.rows = append(tx.rows, r)
	tx.heads[key] = r
	return prevKV, nil
}

func (tx *Tx) begin() bool {
	if !tx.begun {
		if tx.err = tx.w.c.Run("BEGIN IMMEDIATE"); tx.err != nil {
			return false
		}
		tx.begun = true
	}
	return true
}

// Compact stages the compaction to rev: older states cannot be read any more once it is committed.
func (tx *Tx) Compact(rev int64) error {
	switch {
	case rev > tx.rev:
		return keyindex.ErrFuture
	case rev <= max(tx.compacted, tx.compactTo):
		return keyindex.ErrCompacted
	}
	if !tx.begin() {
		return tx.err
	}
	tx.compactTo = rev
	return nil
}

// mark and rollbackTo undo what one failed request staged, not the whole commit.
func (tx *Tx) mark() int { return len(tx.rows) }

func (tx *Tx) rollbackTo(mark int) {
	for i := len(tx.rows) - 1; i >= mark; i-- {
		r := tx.rows[i]
		tx.heads[r.key] = r.older
		tx.rev--
	}
	tx.rows = tx.rows[:mark]
}
