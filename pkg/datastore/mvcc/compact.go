package mvcc

import (
	"context"
	"database/sql/driver"
	"time"
)

// Compact makes the states before rev unreadable and returns once that is durable. The rows go in the
// background, in steps that leave time for writes.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	return s.Do(ctx, 0, func(tx *Tx) error { return tx.Compact(rev) })
}

// writerPatience is how long, in milliseconds, the writer waits for a snapshot to let it empty the log.
const writerPatience = 100

const (
	minSweep  = 32
	maxSweep  = 2048
	sweepTime = 4 * time.Millisecond // what one step may take away from waiting writes
	// Free pages are given back to the file system once they are this many and a third of the file;
	// fewer are left for the next rows.
	vacuumAbove = 2048
)

// sweeper deletes compacted rows, gives free pages back and keeps the write-ahead log small. It belongs
// to the writer's goroutine.
type sweeper struct {
	garbage  []int64
	batch    int // rows per step, adapted to the time a step takes
	vacuum   bool
	shrunk   bool // pages were cut off since the file was made shorter
	walLimit int64
	commits  int
	paused   time.Time // no sweep before, after a failure
	logWait  time.Time // no attempt to shorten the log before, after one that a long read prevented
}

func (g *sweeper) add(garbage []int64) {
	if len(g.garbage) == 0 {
		g.garbage = garbage
		return
	}
	g.garbage = append(g.garbage, garbage...)
}

func (g *sweeper) pending() bool { return len(g.garbage) > 0 || g.vacuum }

// afterCommit takes a step even under constant load, at a share of the commits, and bounds the log.
func (g *sweeper) afterCommit(w *writer) {
	g.commits++
	if g.commits%8 == 0 && g.pending() {
		g.step(w)
	}
	if g.commits%64 == 0 {
		g.boundLog(w)
	}
}

// boundLog empties the log when SQLite's own checkpoints could not keep it small because some read was
// always active. Only a snapshot being taken can prevent it, for the time that takes.
func (g *sweeper) boundLog(w *writer) {
	if time.Now().Before(g.logWait) || fileSize(w.s.cfg.Path+"-wal") <= g.walLimit {
		return
	}
	var busy int64
	var err error
	w.s.withoutReads(func() { busy, err = w.c.Integer("PRAGMA wal_checkpoint(TRUNCATE)") })
	if err != nil {
		w.s.cfg.Log.Warn("cannot shorten the write-ahead log", "error", err)
	}
	if busy != 0 || err != nil {
		g.logWait = time.Now().Add(time.Second)
	}
}

// step does one piece of work and tells whether there is more to do now.
func (g *sweeper) step(w *writer) bool {
	if !g.pending() || time.Now().Before(g.paused) {
		return false
	}
	start := time.Now()
	var err error
	if len(g.garbage) > 0 {
		err = g.deleteRows(w)
	} else {
		err = g.shrink(w)
	}
	if err != nil {
		_ = w.c.Run("ROLLBACK") // there may be none
		g.paused = time.Now().Add(time.Minute)
		w.s.cfg.Log.Warn("cannot delete compacted rows, trying again in a minute", "error", err)
		return false
	}
	g.batch = nextBatch(g.batch, time.Since(start))
	return g.pending()
}

// nextBatch doubles the rows of a step while it is quick and halves them when it takes too long.
func nextBatch(batch int, took time.Duration) int {
	switch {
	case took > sweepTime:
		batch /= 2
	case took < sweepTime/2:
		batch *= 2
	}
	return min(max(batch, minSweep), maxSweep)
}

func (g *sweeper) deleteRows(w *writer) error {
	n := min(g.batch, len(g.garbage))
	if err := w.c.Run("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, id := range g.garbage[:n] {
		if err := w.c.Run("DELETE FROM kine WHERE id = ?", id); err != nil {
			return err
		}
	}
	if err := w.c.Run("COMMIT"); err != nil {
		return err
	}
	g.garbage = g.garbage[n:]
	if len(g.garbage) == 0 {
		g.garbage = nil
		g.vacuum = true
	}
	return nil
}

// shrink moves free pages to the end of the file and cuts them off, a few at a time.
func (g *sweeper) shrink(w *writer) error {
	free, err := w.c.Integer("PRAGMA freelist_count")
	if err != nil {
		return err
	}
	pages, err := w.c.Integer("PRAGMA page_count")
	if err != nil {
		return err
	}
	if free < vacuumAbove || free < pages/3 {
		g.vacuum = false
		return g.shorten(w)
	}
	g.shrunk = true
	// 256 pages are about as quick as a batch of deletions
	return w.c.Each("PRAGMA incremental_vacuum(256)", func([]driver.Value) error { return nil })
}

// shorten makes the file as short as it has become: until the log is written to it, which by itself happens after a thousand pages more, it keeps
// its length. A read that goes on prevents it, and leaves it to the next time.
func (g *sweeper) shorten(w *writer) error {
	if !g.shrunk {
		return nil
	}
	g.shrunk = false
	_, err := w.c.Integer("PRAGMA wal_checkpoint(PASSIVE)")
	return err
}
