package sqlite

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
)

// expiry deletes keys whose time to live is over. The time runs from the write, and after a restart
// from the start again, as with kine.
type expiry struct {
	mu    sync.Mutex
	queue deadlines
	wake  chan struct{}
}

type deadline struct {
	at  time.Time
	key string
	mod int64
}

func newExpiry() *expiry { return &expiry{wake: make(chan struct{}, 1)} }

// add notes the deadline of a revision; revisions without a lease never end.
func (e *expiry) add(key string, r keyindex.Rev) {
	if r.Lease <= 0 || r.Deleted() {
		return
	}
	e.mu.Lock()
	d := deadline{at: time.Now().Add(time.Duration(r.Lease) * time.Second), key: key, mod: r.Mod}
	heap.Push(&e.queue, d)
	first := e.queue[0] == d
	e.mu.Unlock()
	if first {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// next returns the deadlines that are over and the time until the first that is not, -1 for none.
func (e *expiry) next(now time.Time, limit int) ([]deadline, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var due []deadline
	for len(e.queue) > 0 && len(due) < limit {
		if wait := e.queue[0].at.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&e.queue).(deadline))
	}
	if len(e.queue) == 0 {
		return due, -1
	}
	return due, 0
}

const expiryBatch = 100

func (e *expiry) run(ctx context.Context, s *Store) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
		due, wait := e.next(time.Now(), expiryBatch)
		if err := s.expire(ctx, due); err != nil {
			e.putBack(due, time.Now().Add(time.Second))
			wait = time.Second
		}
		if wait >= 0 {
			timer.Reset(wait)
		}
	}
}

func (e *expiry) putBack(due []deadline, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range due {
		d.at = at
		heap.Push(&e.queue, d)
	}
}

// expire deletes the keys that nobody wrote since.
func (s *Store) expire(ctx context.Context, due []deadline) error {
	if len(due) == 0 {
		return nil
	}
	return s.Do(ctx, 0, func(tx *Tx) error {
		for _, d := range due {
			if head, ok := tx.Head(d.key); !ok || head.Mod != d.mod {
				continue
			}
			if _, err := tx.Delete(d.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// deadlines is a heap of what ends first.
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push is called by package heap.
func (d *deadlines) Push(x any) { *d = append(*d, x.(deadline)) }

// Pop is called by package heap.
func (d *deadlines) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
