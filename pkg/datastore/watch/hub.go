// Package watch hands the events of a store to the watches of its clients, in order, each exactly
// once, and knows for every client up to which revision it has been told everything. Only packages
// below pkg/datastore may import it.
package watch

import (
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
)

// History is where a watch reads what happened before it caught up.
type History interface {
	// Events returns the events of [key, end) from revision from to revision to, oldest first, at most
	// limit and no more than fit into memory well, and the revision up to which they are complete; keyindex.ErrCompacted when from
	// has been compacted.
	Events(key, end string, from, to int64, limit int) ([]*mvccpb.Event, int64, error)
	// Revisions returns the current and the compacted revision.
	Revisions() (current, compacted int64)
}

const (
	// historyChunk is how many events a watch reads at once while it catches up.
	historyChunk = 500
	// maxQueued is how many bytes of events wait for a slow client before its watches go back to reading
	// history.
	maxQueued = 4 << 20
	// maxDelivery is how many bytes of events go into one message, unless one event alone has more.
	maxDelivery = 1 << 20
	// lockedGap is how many revisions may be read from history with the hub locked, to close a gap.
	lockedGap = 64
)

// Hub connects one writer of events with many streams.
type Hub struct {
	mu      sync.Mutex
	rev     int64
	history History
	streams map[*Stream]struct{}
	synced  map[span]map[*watch]struct{} // watches that take events as they come
}

type span struct{ key, end string }

// NewHub returns a hub that has delivered nothing yet. Call Start before anything else.
func NewHub() *Hub {
	return &Hub{streams: map[*Stream]struct{}{}, synced: map[span]map[*watch]struct{}{}}
}

// Start tells the hub where the past is, and that everything from revision rev on will be published.
func (h *Hub) Start(history History, rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history = history
	h.rev = max(h.rev, rev)
}

// Publish delivers the events of one commit, which ended at revision rev. It never blocks on a client.
func (h *Hub) Publish(events []*mvccpb.Event, rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sp, watches := range h.synced {
		matched := within(events, sp)
		if len(matched) == 0 {
			continue
		}
		for w := range watches {
			w.stream.deliver(w, matched)
		}
	}
	h.rev = max(h.rev, rev)
	for st := range h.streams {
		st.reportProgress() // if it was asked for before it could be told
		if st.queued > maxQueued {
			st.fallBehind()
		}
	}
}

// within returns the events whose key lies in the span, without copying when all or none do.
func within(events []*mvccpb.Event, sp span) []*mvccpb.Event {
	var out []*mvccpb.Event
	for i, e := range events {
		if !keyindex.InRange(string(e.Kv.Key), sp.key, sp.end) {
			continue
		}
		if out == nil {
			if len(events) == 1 {
				return events
			}
			out = make([]*mvccpb.Event, 0, len(events)-i)
		}
		out = append(out, e)
	}
	return out
}

// Tick queues a progress delivery for every watch that asked for them and was told nothing since the
// last Tick although the revision went on.
func (h *Hub) Tick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, watches := range h.synced {
		for w := range watches {
			if w.opts.Progress && w.told < h.rev && w.next <= h.rev+1 {
				w.told = h.rev
				w.stream.push(Delivery{WatchID: w.opts.ID, Kind: Progress, Revision: h.rev})
			}
		}
	}
}

func (h *Hub) sync(w *watch) {
	set := h.synced[w.span]
	if set == nil {
		set = map[*watch]struct{}{}
		h.synced[w.span] = set
	}
	set[w] = struct{}{}
	w.synced = true
}

func (h *Hub) unsync(w *watch) {
	if !w.synced {
		return
	}
	w.synced = false
	set := h.synced[w.span]
	delete(set, w)
	if len(set) == 0 {
		delete(h.synced, w.span)
	}
}
