// Package expiry remembers when keys end and has them deleted then. Only packages below pkg/datastore
// may import it.
package expiry

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Deadline says when a key ends, if it still has the revision then.
type Deadline struct {
	Key      string
	Revision int64
	at       time.Time
}

// Queue holds deadlines, the first to come first.
type Queue struct {
	mu    sync.Mutex
	queue deadlines
	wake  chan struct{}
}

// NewQueue returns an empty queue.
func NewQueue() *Queue { return &Queue{wake: make(chan struct{}, 1)} }

// Add notes a deadline.
func (q *Queue) Add(key string, revision int64, at time.Time) {
	q.mu.Lock()
	d := Deadline{Key: key, Revision: revision, at: at}
	heap.Push(&q.queue, d)
	first := q.queue[0] == d
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// next takes out the deadlines that are over, at most limit, and tells how long it is to the first one
// left, -1 if none is.
func (q *Queue) next(now time.Time, limit int) ([]Deadline, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due []Deadline
	for len(q.queue) > 0 && len(due) < limit {
		if wait := q.queue[0].at.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&q.queue).(Deadline))
	}
	if len(q.queue) == 0 {
		return due, -1
	}
	return due, max(0, q.queue[0].at.Sub(now))
}

const (
	batch      = 100         // deadlines handed over at once
	retryAfter = time.Second // when they could not be deleted, the disk being full for example
)

// Run hands deadlines that are over to remove until ctx is done. What remove fails on comes again.
func (q *Queue) Run(ctx context.Context, remove func(ctx context.Context, due []Deadline) error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
		due, wait := q.next(time.Now(), batch)
		if len(due) > 0 {
			if err := remove(ctx, due); err != nil {
				q.putBack(due, time.Now().Add(retryAfter))
				wait = retryAfter
			}
		}
		if wait >= 0 {
			timer.Reset(wait)
		}
	}
}

func (q *Queue) putBack(due []Deadline, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range due {
		d.at = at
		heap.Push(&q.queue, d)
	}
}

// deadlines is a heap.
type deadlines []Deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push is for package heap.
func (d *deadlines) Push(x any) { *d = append(*d, x.(Deadline)) }

// Pop is for package heap.
func (d *deadlines) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = Deadline{}
	*d = old[:len(old)-1]
	return last
}
