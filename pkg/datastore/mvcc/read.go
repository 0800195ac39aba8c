package mvcc

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// errGone says that a compaction took a row between the index and the table.
var errGone = errors.New("row is gone")

// Range answers with the keys of [key, end) and their values at revision at; see keyindex.Range for
// the meaning of end, at and limit. Without values the table is not read at all.
func (s *Store) Range(key, end string, at, limit int64, values bool) ([]*mvccpb.KeyValue, keyindex.Page, error) {
	for {
		page, err := s.index.Range(key, end, at, limit)
		if err != nil {
			return nil, page, err
		}
		kvs, err := s.keyValues(page.Entries, values)
		if errors.Is(err, errGone) {
			if _, compacted := s.index.Revisions(); at > 0 && at < compacted {
				return nil, page, keyindex.ErrCompacted
			}
			if _, compacted := s.index.Revisions(); page.Rev < compacted {
				continue // the state that was read is older than a compaction that came between
			}
			err = fmt.Errorf("%w: a value is missing", sqlite.ErrDamaged)
			s.fail(err)
			return nil, page, err
		}
		return kvs, page, err
	}
}

// Count returns how many keys Range would find.
func (s *Store) Count(key, end string, at int64) (keyindex.Page, error) {
	return s.index.Range(key, end, at, 1)
}

const (
	// eventsChunk and eventsBytes bound the memory of one answer of Events: it stops after the chunk that
	// goes over the bytes.
	eventsChunk = 50
	eventsBytes = 2 << 20
)

// Events returns what happened to the keys of [key, end) from revision from to revision to, oldest
// first, and the revision up to which the answer is complete. It stops after limit events (0 for no
// limit) or about 2 MiB.
func (s *Store) Events(key, end string, from, to int64, limit int) ([]*mvccpb.Event, int64, error) {
	changes, upTo, err := s.index.Changes(key, end, from, to, limit)
	if err != nil {
		return nil, 0, err
	}
	events := make([]*mvccpb.Event, 0, len(changes))
	size := 0
	for len(changes) > 0 {
		chunk := changes[:min(eventsChunk, len(changes))]
		changes = changes[len(chunk):]
		next, err := s.events(chunk)
		if errors.Is(err, errGone) {
			return nil, 0, keyindex.ErrCompacted
		}
		if err != nil {
			return nil, 0, err
		}
		events = append(events, next...)
		for _, e := range next {
			size += len(e.Kv.Value)
			if e.PrevKv != nil {
				size += len(e.PrevKv.Value)
			}
		}
		if size > eventsBytes && len(changes) > 0 {
			return events, chunk[len(chunk)-1].Rev.Mod, nil
		}
	}
	return events, upTo, nil
}

// events reads the values of changes.
func (s *Store) events(changes []keyindex.Change) ([]*mvccpb.Event, error) {
	var entries []keyindex.Entry
	wanted := map[int64]bool{}
	for _, c := range changes {
		for _, r := range []keyindex.Rev{c.Rev, c.Prev} {
			if r.Mod > 0 && !r.Deleted() && !wanted[r.Mod] {
				wanted[r.Mod] = true
				entries = append(entries, keyindex.Entry{Key: c.Key, Rev: r})
			}
		}
	}
	kvs, err := s.keyValues(entries, true)
	if err != nil {
		return nil, err
	}
	byRev := make(map[int64]*mvccpb.KeyValue, len(kvs))
	for _, kv := range kvs {
		byRev[kv.ModRevision] = kv
	}
	events := make([]*mvccpb.Event, 0, len(changes))
	for _, c := range changes {
		e := &mvccpb.Event{Kv: byRev[c.Rev.Mod], PrevKv: byRev[c.Prev.Mod]}
		if c.Rev.Deleted() {
			e.Type = mvccpb.DELETE
			e.Kv = &mvccpb.KeyValue{Key: []byte(c.Key), ModRevision: c.Rev.Mod}
		}
		events = append(events, e)
	}
	return events, nil
}

func keyValue(e keyindex.Entry, value []byte) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(e.Key), Value: value, Lease: e.Lease,
		CreateRevision: e.Create, ModRevision: e.Mod, Version: e.Version,
	}
}

func (s *Store) keyValues(entries []keyindex.Entry, values bool) ([]*mvccpb.KeyValue, error) {
	kvs := make([]*mvccpb.KeyValue, len(entries))
	for i, e := range entries {
		kvs[i] = keyValue(e, nil)
	}
	if !values || len(kvs) == 0 {
		return kvs, nil
	}
	err := s.fillValues(kvs)
	if sqlite.Malformed(err) {
		s.fail(fmt.Errorf("read: %w", err))
	}
	if err != nil {
		return nil, err
	}
	return kvs, nil
}

// read runs do on a read connection, waiting for a free one.
func (s *Store) read(do func(*sqlite.Conn) error) error {
	c := <-s.readers
	if c == nil {
		var err error
		c, err = sqlite.Open(s.cfg.Path, "busy_timeout = 10000", "query_only = ON", "cache_size = -1024")
		if err != nil {
			s.readers <- nil
			return fmt.Errorf("open reader: %w", err)
		}
	}
	defer func() { s.readers <- c }()
	return do(c)
}

// withoutReads runs do while nothing is being read, which takes as long to come as one chunk.
func (s *Store) withoutReads(do func()) {
	var held [maxReaders]*sqlite.Conn
	for i := range held {
		held[i] = <-s.readers
	}
	do()
	for _, c := range held {
		s.readers <- c
	}
}

const (
	valueOf  = "SELECT value, sum FROM kine WHERE id = ?"
	valuesIn = "SELECT value, sum, id FROM kine WHERE id >= ? AND id <= ?"
	// readChunk bounds how long one read keeps its snapshot, which holds back checkpoints.
	readChunk = 1000
)

// fillValues reads the value of every element. Rows never change once written, so no snapshot is
// needed over the whole list.
func (s *Store) fillValues(kvs []*mvccpb.KeyValue) error {
	if len(kvs) == 1 {
		return s.read(func(c *sqlite.Conn) error { return fillOne(c, kvs[0]) })
	}
	byRev := slices.Clone(kvs)
	slices.SortFunc(byRev, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) })
	for chunk := range slices.Chunk(byRev, readChunk) {
		if err := s.read(func(c *sqlite.Conn) error { return fillChunk(c, chunk) }); err != nil {
			return err
		}
	}
	return nil
}

// setValue takes a value and its checksum from a row.
func setValue(kv *mvccpb.KeyValue, row []driver.Value) error {
	kv.Value = sqlite.Blob(row[0])
	if row[1] == nil {
		return nil // written by kine
	}
	rev := keyindex.Rev{Mod: kv.ModRevision, Create: kv.CreateRevision, Version: kv.Version, Lease: kv.Lease}
	if sqlite.Int(row[1]) != checksum(keyindex.Entry{Key: string(kv.Key), Rev: rev}, kv.Value) {
		return fmt.Errorf("%w: the value of %s at revision %d has changed", sqlite.ErrDamaged, kv.Key, kv.ModRevision)
	}
	return nil
}

func fillOne(c *sqlite.Conn, kv *mvccpb.KeyValue) error {
	found := false
	err := c.Each(valueOf, func(row []driver.Value) error {
		found = true
		return setValue(kv, row)
	}, kv.ModRevision)
	if err == nil && !found {
		return errGone
	}
	return err
}

// fillChunk takes elements in ascending revision. Where they lie close together one scan over all
// rows between is cheaper than a search for each.
func fillChunk(c *sqlite.Conn, kvs []*mvccpb.KeyValue) (err error) {
	first, last := kvs[0].ModRevision, kvs[len(kvs)-1].ModRevision
	if last-first < int64(2*len(kvs)) {
		return fillScan(c, kvs, first, last)
	}
	if err := c.Run("BEGIN"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Run("COMMIT")) }()
	for _, kv := range kvs {
		if err := fillOne(c, kv); err != nil {
			return err
		}
	}
	return nil
}

func fillScan(c *sqlite.Conn, kvs []*mvccpb.KeyValue, first, last int64) error {
	err := c.Each(valuesIn, func(row []driver.Value) error {
		id := sqlite.Int(row[2])
		if len(kvs) > 0 && kvs[0].ModRevision == id {
			if err := setValue(kvs[0], row); err != nil {
				return err
			}
			kvs = kvs[1:]
		}
		if len(kvs) > 0 && kvs[0].ModRevision < id {
			return errGone
		}
		return nil
	}, first, last)
	if err == nil && len(kvs) > 0 {
		return errGone
	}
	return err
}
