package datastore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/kedge-io/kedge/pkg/datastore"
)

func TestWatchSeesPreviousValues(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	rev := mustCreate(t, c, "/registry/pods/a", "1")
	past := c.Watch(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(rev))
	live := c.Watch(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(rev+1))
	mustCreate(t, c, "/registry/services/a", "other")
	if _, err := c.Put(ctx, "/registry/pods/a", "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, "/registry/pods/a"); err != nil {
		t.Fatal(err)
	}
	check := func(name string, e *clientv3.Event, kind, value, prev string, create bool) {
		t.Helper()
		got := ""
		if e.PrevKv != nil {
			got = string(e.PrevKv.Value)
		}
		if e.Type.String() != kind || string(e.Kv.Value) != value || got != prev || e.IsCreate() != create {
			t.Errorf("%s: %v, want %s %q before %q", name, e, kind, value, prev)
		}
	}
	all := awaitEvents(t, past, 3)
	check("past", all[0], "PUT", "1", "", true)
	check("past", all[1], "PUT", "2", "1", false)
	check("past", all[2], "DELETE", "", "2", false)
	two := awaitEvents(t, live, 2)
	check("live", two[0], "PUT", "2", "1", false)
	check("live", two[1], "DELETE", "", "2", false)
	// and again, all of it from history
	again := awaitEvents(t, c.Watch(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(rev)), 3)
	check("history", again[1], "PUT", "2", "1", false)
	check("history", again[2], "DELETE", "", "2", false)
}

// TestWatchesMissNothing starts watches at random revisions while many clients write, and checks that
// each gets every later event once and in order.
func TestWatchesMissNothing(t *testing.T) {
	const writers, each, watches = 16, 150, 24
	c, ctx := newStore(t), t.Context()
	base := mustCreate(t, c, "/w/base", "x")
	var writing, watching sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if _, err := c.Put(ctx, fmt.Sprintf("/w/%d", w), fmt.Sprint(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range watches {
		watching.Go(func() {
			from := base + 1 + int64(n*writers*each/watches/2)
			wctx := metadata.AppendToOutgoingContext(ctx, "n", fmt.Sprint(n%5))
			events := awaitEvents(t, c.Watch(wctx, "/w/", clientv3.WithPrefix(), clientv3.WithRev(from)), writers*each-int(from-base-1))
			for i, e := range events {
				if e.Kv.ModRevision != from+int64(i) {
					t.Errorf("watch %d from %d: event %d has revision %d", n, from, i, e.Kv.ModRevision)
					return
				}
			}
		})
	}
	writing.Wait()
	watching.Wait()
}

// TestSlowWatchCatchesUp lets a client stop reading until its watch has been put off the live flow.
func TestSlowWatchCatchesUp(t *testing.T) {
	const writes = 6000
	c, ctx := newStore(t), t.Context()
	rev := mustCreate(t, c, "/slow", "x")
	raw := rawWatch(t, c.ActiveConnection(), ctx)
	raw.create(t, "/slow", rev+1)
	value := string(make([]byte, 4096))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range writes / 8 {
				if _, err := c.Put(ctx, "/slow", value); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	want := rev + 1
	for want <= rev+writes {
		for _, e := range raw.recv(t).Events {
			if e.Kv.ModRevision != want {
				t.Fatalf("revision %d, want %d", e.Kv.ModRevision, want)
			}
			want++
		}
	}
}

// TestProgressIsPromptAndRight asks for progress while others write: an answer must not overtake the
// events before it, and must come at once.
func TestProgressIsPromptAndRight(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	writer := newClient(t, c.Endpoints()[0])
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; stop.Err() == nil; i++ {
			if _, err := writer.Put(stop, "/p/key", fmt.Sprint(i)); err != nil && stop.Err() == nil {
				t.Error(err)
			}
		}
	})
	raw := rawWatch(t, c.ActiveConnection(), ctx)
	raw.create(t, "/p/", 0)
	var seen int64
	var slowest time.Duration
	for range 200 {
		head, err := c.Get(ctx, "/p/key")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		raw.requestProgress(t)
		for {
			resp := raw.recv(t)
			for _, e := range resp.Events {
				if e.Kv.ModRevision <= seen {
					t.Fatalf("event at %d after progress at %d", e.Kv.ModRevision, seen)
				}
				seen = e.Kv.ModRevision
			}
			if len(resp.Events) == 0 && resp.WatchId == -1 {
				if resp.Header.Revision < head.Header.Revision-1 {
					t.Fatalf("progress %d, but %d was read before", resp.Header.Revision, head.Header.Revision)
				}
				seen = resp.Header.Revision
				break
			}
		}
		slowest = max(slowest, time.Since(begin))
	}
	cancel()
	wg.Wait()
	t.Logf("slowest progress %v", slowest)
	if slowest > time.Second {
		t.Errorf("progress took %v", slowest)
	}
}

func TestRegularProgress(t *testing.T) {
	d := start(t, datastore.Config{Dir: t.TempDir(), ProgressInterval: 20 * time.Millisecond})
	c, ctx := newClient(t, d.Endpoint()), t.Context()
	events := c.Watch(ctx, "/quiet", clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	<-events
	rev := mustCreate(t, c, "/elsewhere", "x")
	for resp := range events {
		if resp.IsProgressNotify() && resp.Header.Revision >= rev {
			return
		}
	}
	t.Fatal("no progress")
}
