package datastore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
)

var historyOf = flag.Int("history", 0, "measure what the history of this many updates of 1 KiB costs")

// TestHistoryIsBounded has few objects change often. All of it is kept until it is compacted: then the file shrinks to what is alive, also when
// nobody writes any more.
func TestHistoryIsBounded(t *testing.T) {
	const objects, size = 500, 1 << 10
	updates := max(*historyOf, 20_000)
	dir := t.TempDir()
	r := start(t, datastore.Config{Dir: dir})
	h := &grown{t: t, dir: dir, client: newClient(t, r.Endpoint())}
	h.update(objects, objects, size)
	before := h.measure("objects alone")
	begin := time.Now()
	first := h.update(updates, objects, size)
	full := h.measure(fmt.Sprintf("%d updates in %v", updates, time.Since(begin).Round(time.Millisecond)))
	added, heap := full.file-before.file, int64(full.heap)-int64(before.heap)
	t.Logf("an update costs %d bytes on disk and %d in memory", added/int64(updates), heap/int64(updates))
	if added > int64(updates)*(size+512) {
		t.Errorf("the file grew by %d bytes", added)
	}
	if heap > int64(updates)*300+16<<20 {
		t.Errorf("the heap grew by %d bytes", heap)
	}
	if full.log > 64<<20 {
		t.Errorf("the write-ahead log has %d bytes", full.log)
	}
	events, err := h.since(first)
	if err != nil || events != updates {
		t.Errorf("%d of %d updates are history: %v", events, updates, err)
	}
	h.measure("a watch read all of it")
	h.restart(r)

	begin = time.Now()
	if _, err := h.client.Compact(t.Context(), first+int64(updates)-1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); sizeOf(filepath.Join(dir, "state.db")) > 16<<20; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the file has %d bytes two minutes after the compaction", sizeOf(filepath.Join(dir, "state.db")))
		}
	}
	h.measure(fmt.Sprintf("compacted and shrunk after %v", time.Since(begin).Round(time.Millisecond)))
}

// grown is a datastore that grows.
type grown struct {
	t      *testing.T
	dir    string
	client *clientv3.Client
}

type sizes struct {
	file, log int64
	heap      uint64
}

func (h *grown) measure(what string) sizes {
	h.t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := sizes{sizeOf(filepath.Join(h.dir, "state.db")), sizeOf(filepath.Join(h.dir, "state.db-wal")), m.HeapAlloc}
	h.t.Logf("%s: file %d KiB, log %d KiB, heap %d KiB", what, s.file>>10, s.log>>10, s.heap>>10)
	return s
}

// restart stops the datastore and starts it again.
func (h *grown) restart(r *running) {
	h.t.Helper()
	if err := errors.Join(h.client.Close(), r.stop()); err != nil {
		h.t.Fatal(err)
	}
	begin := time.Now()
	h.client = newClient(h.t, start(h.t, datastore.Config{Dir: h.dir}).Endpoint())
	h.measure(fmt.Sprintf("started again in %v", time.Since(begin).Round(time.Millisecond)))
}

// update writes n times, from many writers, and returns the first revision.
func (h *grown) update(n, objects, size int) (first int64) {
	h.t.Helper()
	value := make([]byte, size)
	for i := range value {
		value[i] = byte('a' + rand.IntN(26))
	}
	resp, err := h.client.Get(h.t.Context(), "/registry/grown/")
	if err != nil {
		h.t.Fatal(err)
	}
	const writers = 32
	errs := make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += writers {
				_, errs[w] = h.client.Put(h.t.Context(), fmt.Sprintf("/registry/grown/%04d", i%objects), string(value))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		h.t.Fatal(err)
	}
	return resp.Header.Revision + 1
}

// since counts the events from a revision on.
func (h *grown) since(first int64) (events int, err error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	resp, err := h.client.Get(ctx, "/registry/grown/")
	if err != nil {
		return 0, err
	}
	for w := range h.client.Watch(ctx, "/registry/grown/", clientv3.WithPrefix(), clientv3.WithRev(first)) {
		if err := w.Err(); err != nil {
			return events, err
		}
		if events += len(w.Events); events > 0 && w.Events[len(w.Events)-1].Kv.ModRevision >= resp.Header.Revision {
			return events, nil
		}
	}
	return events, ctx.Err()
}
