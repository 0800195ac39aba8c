package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
)

// past is a history in memory.
type past struct {
	mu        sync.Mutex
	events    []*mvccpb.Event
	compacted int64
}

func (p *past) Revisions() (current, compacted int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.events)), p.compacted
}

func (p *past) Events(key, end string, from, to int64, limit int) ([]*mvccpb.Event, int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if from < p.compacted {
		return nil, 0, keyindex.ErrCompacted
	}
	var out []*mvccpb.Event
	for rev := from; rev <= to; rev++ {
		if e := p.events[rev-1]; keyindex.InRange(string(e.Kv.Key), key, end) {
			if out = append(out, e); len(out) == limit {
				return out, rev, nil
			}
		}
	}
	return out, to, nil
}

// write adds n events and publishes them as one commit.
func (p *past) write(h *Hub, n int, key string) {
	p.mu.Lock()
	var batch []*mvccpb.Event
	for range n {
		e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: int64(len(p.events) + 1)}}
		p.events = append(p.events, e)
		batch = append(batch, e)
	}
	rev := int64(len(p.events))
	p.mu.Unlock()
	h.Publish(batch, rev)
}

func newHub() (*Hub, *past) {
	h, p := NewHub(), &past{}
	h.Start(p, 0)
	return h, p
}

// next returns what is queued, without waiting.
func next(t *testing.T, st *Stream) []Delivery {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := st.Next(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return out
}

func describe(ds []Delivery) string {
	s := ""
	for _, d := range ds {
		s += fmt.Sprintf("[%d %d @%d", d.WatchID, d.Kind, d.Revision)
		for _, e := range d.Events {
			s += fmt.Sprint(" ", e.Kv.ModRevision)
		}
		s += "]"
	}
	return s
}

func expect(t *testing.T, got []Delivery, want string) {
	t.Helper()
	if s := describe(got); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestLiveWatch(t *testing.T) {
	h, p := newHub()
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a", End: "b"})
	st.Watch(Options{ID: 2, Key: "x"})
	expect(t, next(t, st), "[1 0 @0][2 0 @0]")
	p.write(h, 2, "aa")
	p.write(h, 1, "x")
	p.write(h, 1, "q")
	expect(t, next(t, st), "[1 1 @2 1 2][2 1 @3 3]")
	if st.Watch(Options{ID: 2}) {
		t.Error("an id must be free")
	}
	st.Cancel(2)
	p.write(h, 1, "x")
	expect(t, next(t, st), "[2 3 @4]")
}

func TestProgressWaitsForWatchesBehind(t *testing.T) {
	h, p := newHub()
	p.write(h, 5, "a")
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a", Start: 2})
	st.RequestProgress()
	expect(t, next(t, st), "[1 0 @5]")
	expect(t, next(t, st), "[1 1 @5 2 3 4 5][-1 2 @5]")
	p.write(h, 1, "elsewhere")
	st.RequestProgress()
	expect(t, next(t, st), "[-1 2 @6]")
	st.Watch(Options{ID: 2, Key: "a", Start: 9})
	st.RequestProgress()
	expect(t, next(t, st), "[2 0 @6]") // who waits for 9 must not be told of 6
	p.write(h, 2, "elsewhere")
	expect(t, next(t, st), "[-1 2 @8]")
}

func TestTickTellsOnlyNews(t *testing.T) {
	h, p := newHub()
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a", Progress: true})
	st.Watch(Options{ID: 2, Key: "a"})
	next(t, st)
	h.Tick()
	expect(t, next(t, st), "")
	p.write(h, 1, "elsewhere")
	h.Tick()
	h.Tick()
	expect(t, next(t, st), "[1 2 @1]")
	p.write(h, 1, "a")
	next(t, st)
	h.Tick()
	expect(t, next(t, st), "")
}

func TestCompactedStart(t *testing.T) {
	h, p := newHub()
	p.write(h, 5, "a")
	p.compacted = 4
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a", Start: 3})
	next(t, st)
	got := next(t, st)
	expect(t, got, "[1 3 @5]")
	if got[0].CompactRevision != 4 || !errors.Is(got[0].Err, keyindex.ErrCompacted) {
		t.Errorf("%+v", got[0])
	}
}

func TestFilters(t *testing.T) {
	h, p := newHub()
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a", NoPut: true})
	st.Watch(Options{ID: 2, Key: "a", NoDelete: true})
	next(t, st)
	p.write(h, 1, "a")
	h.Publish([]*mvccpb.Event{{
		Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 2}, PrevKv: &mvccpb.KeyValue{},
	}}, 2)
	got := next(t, st)
	expect(t, got, "[2 1 @1 1][1 1 @2 2]")
	if got[1].Events[0].PrevKv != nil {
		t.Error("nobody asked for the previous value")
	}
}

// TestSlowStreamFallsBehind fills the queue of a client that does not read: it must stop growing, and the
// client must get everything in the end.
func TestSlowStreamFallsBehind(t *testing.T) {
	h, p := newHub()
	st := h.NewStream()
	st.Watch(Options{ID: 1, Key: "a"})
	next(t, st)
	const writes = 2 * maxQueued / 1000 * 10 // each weighs over 100 bytes
	for range writes / 10 {
		p.write(h, 10, "a")
	}
	if st.queued > maxQueued+2000 {
		t.Errorf("%d bytes are queued", st.queued)
	}
	want := int64(1)
	for want <= writes {
		for _, d := range next(t, st) {
			for _, e := range d.Events {
				if e.Kv.ModRevision != want {
					t.Fatalf("event %d, want %d", e.Kv.ModRevision, want)
				}
				want++
			}
		}
	}
}

// TestRandomStreams checks order and completeness with streams that come, read and go while others write.
func TestRandomStreams(t *testing.T) {
	h, p := newHub()
	var wg sync.WaitGroup
	const commits = 3000
	wg.Go(func() {
		for range commits {
			p.write(h, 1+rand.IntN(4), "a")
		}
	})
	for range 8 {
		wg.Go(func() {
			st := h.NewStream()
			defer st.Close()
			current, _ := p.Revisions()
			want := 1 + rand.Int64N(current+1)
			st.Watch(Options{ID: 1, Key: "a", Start: want})
			for want < commits {
				st.RequestProgress()
				ds, err := st.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range ds {
					if d.Kind == Progress && d.Revision >= want {
						t.Errorf("progress %d before event %d", d.Revision, want)
						return
					}
					for _, e := range d.Events {
						if e.Kv.ModRevision != want {
							t.Errorf("event %d, want %d", e.Kv.ModRevision, want)
							return
						}
						want++
					}
				}
			}
		})
	}
	wg.Wait()
}
