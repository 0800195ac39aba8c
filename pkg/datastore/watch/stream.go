package watch

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
)

// Kind says what a Delivery is about.
type Kind int

// The kinds of deliveries.
const (
	Created  Kind = iota // the watch exists; everything after Revision comes, or from its start on
	Events               // something happened
	Progress             // everything up to Revision has been delivered; WatchID -1 means on all watches
	Canceled             // the watch is over; CompactRevision is set if its start was compacted
	Refused              // the watch was never created; WatchID is -1
)

// Reasons to refuse a watch, in etcd's words.
var (
	// ErrTaken says that a stream has a watch with the wanted ID already.
	ErrTaken = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrEmptyRange says that no key can lie in the wanted range.
	ErrEmptyRange = errors.New("mvcc: watcher range is empty")
)

// AllWatches is the WatchID of a Progress that holds for the whole stream.
const AllWatches = -1

// Delivery is one message to a client.
type Delivery struct {
	WatchID         int64
	Kind            Kind
	Events          []*mvccpb.Event // shared between clients: read only
	Revision        int64
	CompactRevision int64
	Err             error
	size            int // of Events, about
}

// Options describe one watch.
type Options struct {
	ID       int64  // unique within the stream
	Key, End string // see keyindex.Index.Range
	Start    int64  // first revision wanted, 0 for whatever comes next
	PrevKV   bool   // events carry the value they replaced
	NoPut    bool   // leave out puts
	NoDelete bool   // leave out deletions
	Progress bool   // wants to hear of progress regularly
}

type watch struct {
	opts   Options
	span   span
	stream *Stream
	synced bool
	next   int64 // first revision not delivered; while synced only a lower bound
	told   int64 // last revision the client was told about
}

// Stream is the ordered flow of deliveries to one client. One goroutine calls Next, any may call the
// other methods.
type Stream struct {
	hub      *Hub
	watches  map[int64]*watch
	behind   []*watch // not synced, oldest first
	queue    []Delivery
	queued   int // bytes of events in queue, about
	progress bool
	wake     chan struct{}
}

// NewStream adds a client; Close removes it.
func (h *Hub) NewStream() *Stream {
	st := &Stream{hub: h, watches: map[int64]*watch{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[st] = struct{}{}
	return st
}

// Close ends all watches of the stream.
func (st *Stream) Close() {
	st.hub.mu.Lock()
	defer st.hub.mu.Unlock()
	for _, w := range st.watches {
		st.hub.unsync(w)
	}
	clear(st.watches)
	st.behind, st.queue = nil, nil
	delete(st.hub.streams, st)
}

// Watch adds a watch. It reports false when the ID is taken.
func (st *Stream) Watch(opts Options) bool {
	h := st.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, taken := st.watches[opts.ID]; taken {
		return false
	}
	w := &watch{opts: opts, span: span{opts.Key, opts.End}, stream: st, next: opts.Start}
	if w.next <= 0 {
		w.next = h.rev + 1
	}
	w.told = w.next - 1
	st.watches[opts.ID] = w
	st.push(Delivery{WatchID: opts.ID, Kind: Created, Revision: h.rev})
	if w.next > h.rev {
		h.sync(w)
	} else {
		st.behind = append(st.behind, w)
	}
	return true
}

// Refuse tells the client that a watch it asked for will not exist.
func (st *Stream) Refuse(reason error) {
	st.hub.mu.Lock()
	defer st.hub.mu.Unlock()
	st.push(Delivery{WatchID: AllWatches, Kind: Refused, Revision: st.hub.rev, Err: reason})
}

// Cancel ends a watch; an unknown ID is ignored.
func (st *Stream) Cancel(id int64) {
	st.hub.mu.Lock()
	defer st.hub.mu.Unlock()
	if w, ok := st.watches[id]; ok {
		st.remove(w)
		st.push(Delivery{WatchID: id, Kind: Canceled, Revision: st.hub.rev})
	}
}

// RequestProgress queues one Progress for the whole stream: at once if no watch is behind or waits for the
// future, or else as soon as that is so.
func (st *Stream) RequestProgress() {
	st.hub.mu.Lock()
	defer st.hub.mu.Unlock()
	st.progress = true
	st.reportProgress()
}

func (st *Stream) reportProgress() {
	if !st.progress || len(st.behind) > 0 {
		return
	}
	for _, w := range st.watches {
		if w.next > st.hub.rev+1 { // wants the future only: telling it the present would take it back
			return
		}
	}
	st.progress = false
	st.push(Delivery{WatchID: AllWatches, Kind: Progress, Revision: st.hub.rev})
}

// Next waits for deliveries. Its error is ctx's, or that of the history.
func (st *Stream) Next(ctx context.Context) ([]Delivery, error) {
	for {
		st.hub.mu.Lock()
		out := st.queue
		st.queue, st.queued = nil, 0
		var late *watch
		if len(out) == 0 && len(st.behind) > 0 {
			late = st.behind[0]
		}
		st.hub.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		if late != nil {
			if err := st.catchUp(late); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-st.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// catchUp delivers the next part of the history to a watch, which becomes synced when nothing is left.
func (st *Stream) catchUp(w *watch) error {
	h := st.hub
	current, _ := h.history.Revisions()
	events, upTo, err := h.history.Events(w.opts.Key, w.opts.End, w.next, current, historyChunk)
	h.mu.Lock()
	defer h.mu.Unlock()
	if st.watches[w.opts.ID] != w {
		return nil // cancelled meanwhile
	}
	if err == nil && upTo < h.rev && h.rev-upTo <= lockedGap {
		var rest []*mvccpb.Event
		rest, upTo, err = h.history.Events(w.opts.Key, w.opts.End, upTo+1, h.rev, lockedGap)
		events = append(events, rest...)
	}
	if errors.Is(err, keyindex.ErrCompacted) {
		_, compacted := h.history.Revisions()
		st.remove(w)
		st.push(Delivery{WatchID: w.opts.ID, Kind: Canceled, Revision: h.rev, CompactRevision: compacted, Err: err})
		st.reportProgress()
		return nil
	}
	if err != nil {
		return err
	}
	st.deliver(w, events)
	w.next = max(w.next, upTo+1)
	if w.next > h.rev {
		st.behind = slices.DeleteFunc(st.behind, func(o *watch) bool { return o == w })
		h.sync(w)
		st.reportProgress()
	} else if len(st.behind) > 1 { // let the others have their turn
		st.behind = append(st.behind[1:], w)
	}
	return nil
}

// deliver queues the events that the watch wants and has not had.
func (st *Stream) deliver(w *watch, events []*mvccpb.Event) {
	for len(events) > 0 && events[0].Kv.ModRevision < w.next {
		events = events[1:]
	}
	if len(events) == 0 {
		return
	}
	last := events[len(events)-1].Kv.ModRevision
	w.next = last + 1
	if events = w.wanted(events); len(events) == 0 {
		return
	}
	w.told = last
	for _, e := range events {
		st.append(w, e)
	}
}

// append adds an event to the last delivery, if that is to the same watch and not too large, or to a new.
func (st *Stream) append(w *watch, e *mvccpb.Event) {
	size := weigh(e)
	st.queued += size
	if n := len(st.queue); n > 0 {
		d := &st.queue[n-1]
		if d.Kind == Events && d.WatchID == w.opts.ID && d.size+size <= maxDelivery {
			d.Events = append(d.Events, e)
			d.Revision = e.Kv.ModRevision
			d.size += size
			return
		}
	}
	st.push(Delivery{WatchID: w.opts.ID, Kind: Events, Events: []*mvccpb.Event{e}, Revision: e.Kv.ModRevision, size: size})
}

// weigh is about how many bytes an event takes.
func weigh(e *mvccpb.Event) int {
	n := 100 + len(e.Kv.Key) + len(e.Kv.Value)
	if e.PrevKv != nil {
		n += len(e.PrevKv.Value)
	}
	return n
}

func (w *watch) wanted(events []*mvccpb.Event) []*mvccpb.Event {
	if w.opts.PrevKV && !w.opts.NoPut && !w.opts.NoDelete {
		return events
	}
	out := make([]*mvccpb.Event, 0, len(events))
	for _, e := range events {
		if (w.opts.NoPut && e.Type == mvccpb.PUT) || (w.opts.NoDelete && e.Type == mvccpb.DELETE) {
			continue
		}
		if !w.opts.PrevKV && e.PrevKv != nil {
			e = &mvccpb.Event{Type: e.Type, Kv: e.Kv}
		}
		out = append(out, e)
	}
	return out
}

// fallBehind takes the stream's watches off the live flow, so that a slow client costs no memory. They
// go on from history once the queue has been read.
func (st *Stream) fallBehind() {
	for _, w := range st.watches {
		if !w.synced {
			continue
		}
		w.next = max(w.next, st.hub.rev+1)
		st.hub.unsync(w)
		st.behind = append(st.behind, w)
	}
}

func (st *Stream) remove(w *watch) {
	delete(st.watches, w.opts.ID)
	st.hub.unsync(w)
	st.behind = slices.DeleteFunc(st.behind, func(o *watch) bool { return o == w })
}

func (st *Stream) push(d Delivery) {
	st.queue = append(st.queue, d)
	select {
	case st.wake <- struct{}{}:
	default:
	}
}
