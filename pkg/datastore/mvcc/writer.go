package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// ErrClosed says that the store was closed or has failed and takes no more writes.
var ErrClosed = errors.New("store is closed")

// ErrNoSpace says that the disk is full; nothing was changed, and later writes may succeed.
var ErrNoSpace = errors.New("disk is full")

const (
	// A commit takes at most this many requests and about this many bytes of values.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
)

// Txn decides and stages the writes of one request. It runs in the writer's goroutine and may run
// again if the commit it was part of fails for another request's sake; it must only touch tx.
type Txn func(tx *Tx) error

type request struct {
	txn  Txn
	size int
	err  error
	done chan struct{}
}

// writer is the only goroutine that changes the database.
type writer struct {
	s        *Store
	c        *sqlite.Conn
	queue    chan *request
	closing  chan struct{}
	ended    chan struct{} // after it nothing is committed any more
	stopOnce sync.Once
	sweeper  sweeper
}

func newWriter(s *Store, c *sqlite.Conn, garbage []int64) *writer {
	return &writer{
		s: s, c: c, queue: make(chan *request, 4*maxBatch), closing: make(chan struct{}), ended: make(chan struct{}),
		sweeper: sweeper{garbage: garbage, batch: minSweep, walLimit: s.cfg.WALLimit},
	}
}

// Do runs txn in the next commit and returns once that is durable. Its error is txn's own or the
// commit's. When ctx ends first, the outcome is unknown. Size is the number of bytes it will write.
func (s *Store) Do(ctx context.Context, size int, txn Txn) error {
	r := &request{txn: txn, size: size, done: make(chan struct{})}
	select {
	case <-s.writer.closing:
		return ErrClosed
	case s.writer.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.writer.ended:
	}
	select {
	case <-r.done:
		return r.err
	default:
		return ErrClosed
	}
}

func (w *writer) stop() { w.stopOnce.Do(func() { close(w.closing) }) }

// run commits what waits until the store is closed; between commits and when idle it sweeps.
func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	idle := time.NewTimer(0)
	defer idle.Stop()
	for {
		select {
		case r := <-w.queue:
			w.commit(w.collect(r))
			w.sweeper.afterCommit(w)
			if w.sweeper.pending() {
				idle.Reset(time.Millisecond)
			}
		case <-idle.C:
			if w.sweeper.step(w) {
				idle.Reset(time.Millisecond)
			}
		case <-w.closing:
			w.drain()
			return
		case <-ctx.Done():
			return
		}
	}
}

// drain commits the requests that came before the store was closed.
func (w *writer) drain() {
	for {
		select {
		case r := <-w.queue:
			w.commit(w.collect(r))
		default:
			return
		}
	}
}

// collect adds to first whatever else is waiting already; it never waits itself. While one commit is
// being synced to disk the next one fills up.
func (w *writer) collect(first *request) []*request {
	batch := []*request{first}
	size := first.size
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case r := <-w.queue:
			batch = append(batch, r)
			size += r.size
		default:
			return batch
		}
	}
	return batch
}

// commit runs the requests in one transaction and answers them. If it fails because of one of them,
// each gets a transaction of its own.
func (w *writer) commit(batch []*request) {
	tx, err := w.try(batch)
	if err != nil && len(batch) > 1 && !sqlite.DiskFull(err) && !sqlite.IOFailed(err) && !errors.Is(err, ErrClosed) {
		for _, r := range batch {
			w.commit([]*request{r})
		}
		return
	}
	if err == nil {
		w.publish(tx)
	}
	for _, r := range batch {
		if err != nil {
			r.err = err
		}
		close(r.done)
	}
}

func (w *writer) try(batch []*request) (*Tx, error) {
	if w.s.Err() != nil {
		return nil, ErrClosed
	}
	rev, compacted := w.s.index.Revisions()
	tx := &Tx{w: w, rev: rev, compacted: compacted, heads: map[string]*row{}}
	for _, r := range batch {
		mark := tx.mark()
		if r.err = r.txn(tx); r.err != nil {
			tx.rollbackTo(mark)
		}
		if tx.err != nil {
			break
		}
	}
	err := tx.err
	if err == nil && tx.begun {
		err = w.flush(tx)
	}
	if err == nil {
		return tx, nil
	}
	if tx.begun {
		_ = w.c.Run("ROLLBACK") // SQLite has already rolled back after some errors
	}
	switch {
	case sqlite.SyncFailed(err):
		w.s.fail(fmt.Errorf("the disk failed to sync a commit: %w", err))
	case sqlite.Malformed(err):
		w.s.fail(fmt.Errorf("write: %w", err))
	}
	if sqlite.DiskFull(err) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return nil, err
}

const insertRow = `INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, version, sum)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

func (w *writer) flush(tx *Tx) error {
	for _, r := range tx.rows {
		created, deleted := int64(0), int64(0)
		create := r.rev.Create
		switch {
		case r.rev.Deleted():
			deleted, create = 1, r.prev.Create
		case r.rev.Version == 1:
			created, create = 1, 0 // as kine has it
		}
		var value any
		if !r.rev.Deleted() {
			value = r.value
		}
		err := w.c.Run(insertRow, r.rev.Mod, storedName(r.key), created, deleted, create, r.prev.Mod, r.rev.Lease, value, r.rev.Version,
			checksum(keyindex.Entry{Key: r.key, Rev: r.rev}, r.value))
		if err != nil {
			return err
		}
	}
	if tx.compactTo > 0 {
		if err := w.c.Run("UPDATE kine SET prev_revision = ? WHERE id = 1", tx.compactTo); err != nil {
			return err
		}
	}
	return w.c.Run("COMMIT")
}

// publish makes a durable transaction visible: first to reads, then to watches, then to its writers.
func (w *writer) publish(tx *Tx) {
	if len(tx.rows) > 0 {
		entries := make([]keyindex.Entry, len(tx.rows))
		events := make([]*mvccpb.Event, len(tx.rows))
		for i, r := range tx.rows {
			entries[i] = keyindex.Entry{Key: r.key, Rev: r.rev}
			events[i] = r.event()
		}
		w.s.index.Apply(entries, tx.rev)
		for _, e := range entries {
			w.s.expire(e.Key, e.Rev)
		}
		if w.s.cfg.Publish != nil {
			w.s.cfg.Publish(events, tx.rev)
		}
	}
	if tx.compactTo > 0 {
		w.sweeper.add(w.s.index.Compact(tx.compactTo))
	}
}

// close empties the write-ahead log into the database file and closes both.
func (w *writer) close() error {
	err := w.c.Run("PRAGMA wal_checkpoint(TRUNCATE)")
	if sqlite.DiskFull(err) {
		w.s.cfg.Log.Warn("cannot empty the write-ahead log, the next start will", "error", err)
		err = nil
	}
	return errors.Join(err, w.c.Close())
}
