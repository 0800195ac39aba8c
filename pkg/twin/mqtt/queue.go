package mqtt

import (
	"sync"

	mochi "github.com/mochi-mqtt/server/v2"
)

// queues counts the bytes that wait for clients. Those of one client and those of all are bounded: a client that does not take what it has
// subscribed to is shut out.
type queues struct {
	one, all int

	mu      sync.Mutex
	total   int
	waiting map[*mochi.Client]*waiting
}

// waiting is what waits for one client: in its queue, and of what it has to acknowledge by number.
type waiting struct {
	queued int
	unsure map[uint16]int
	bytes  int
}

// each is what a message takes beside its payload.
const each = 768

func newQueues(one, all int) *queues {
	return &queues{one: one, all: all, waiting: map[*mochi.Client]*waiting{}}
}

func (q *queues) of(client *mochi.Client) *waiting {
	w := q.waiting[client]
	if w == nil {
		w = &waiting{unsure: map[uint16]int{}}
		q.waiting[client] = w
	}
	return w
}

// put counts a message for a client; it returns the client for whom too much waits, or nil.
func (q *queues) put(client *mochi.Client, size int) *mochi.Client {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.of(client)
	w.queued += size + each
	return q.grow(client, w, size+each)
}

// hold counts a message that a client has to acknowledge, like put.
func (q *queues) hold(client *mochi.Client, id uint16, size int) *mochi.Client {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.of(client)
	grown := size + each - w.unsure[id]
	w.unsure[id] = size + each
	return q.grow(client, w, grown)
}

func (q *queues) grow(client *mochi.Client, w *waiting, by int) *mochi.Client {
	w.bytes += by
	q.total += by
	if w.bytes > q.one {
		return client
	}
	if q.total <= q.all {
		return nil
	}
	most := client
	for name, other := range q.waiting {
		if other.bytes > q.waiting[most].bytes {
			most = name
		}
	}
	return most
}

// took says that a message is no longer in the queue of a client.
func (q *queues) took(client *mochi.Client, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.waiting[client]; w != nil {
		size = min(size+each, w.queued)
		w.queued -= size
		q.shrink(client, w, size)
	}
}

// sure says that a client has acknowledged a message, or never will.
func (q *queues) sure(client *mochi.Client, id uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.waiting[client]; w != nil {
		size := w.unsure[id]
		delete(w.unsure, id)
		q.shrink(client, w, size)
	}
}

// gone says that a client has no queue any more.
func (q *queues) gone(client *mochi.Client) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.waiting[client]; w != nil {
		size := w.queued
		w.queued = 0
		q.shrink(client, w, size)
	}
}

func (q *queues) shrink(client *mochi.Client, w *waiting, by int) {
	w.bytes -= by
	q.total -= by
	if w.queued == 0 && len(w.unsure) == 0 {
		q.total -= w.bytes
		delete(q.waiting, client)
	}
}
