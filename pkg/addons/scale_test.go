package addons

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestStoppedAtAnyMoment stops the component while it applies a changing folder; whatever was applied by then must go when
// the files go.
func TestStoppedAtAnyMoment(t *testing.T) {
	l := newLab(t)
	l.put("ns.yaml", namespaceYAML)
	l.start()
	l.record("ns.yaml", v1alpha1.ReasonApplied, "1 object")
	for round := range 6 {
		for i := range 5 {
			l.put(fmt.Sprintf("f%d.yaml", i), l.maps(fmt.Sprintf("f%d-r%d", i, round), 20))
		}
		l.awaitRound(fmt.Sprintf("-r%d-", round), rand.IntN(60))
		l.halt()
		l.start()
	}
	for i := range 5 {
		l.record(fmt.Sprintf("f%d.yaml", i), v1alpha1.ReasonApplied, "20 objects")
	}
	if got := l.countMaps(); got != 100 {
		t.Errorf("%d ConfigMaps are left of those that files dropped", got-100)
	}
	for i := range 5 {
		l.remove(fmt.Sprintf("f%d.yaml", i))
	}
	for i := range 5 {
		l.noRecord(fmt.Sprintf("f%d.yaml", i))
	}
	if got := l.countMaps(); got != 0 {
		t.Errorf("%d ConfigMaps are left of deleted files", got)
	}
}

// maps is a file of n ConfigMaps of half a kilobyte.
func (l *lab) maps(prefix string, n int) string {
	text := ""
	for i := range n {
		text += fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s-%d, namespace: %s, labels: {bulk: 'yes'}}\ndata: {key: 'x%0400d'}\n",
			prefix, i, l.ns, i)
	}
	return text
}

// awaitRound waits until at least n objects with the mark in their names were applied.
func (l *lab) awaitRound(mark string, n int) {
	l.t.Helper()
	l.await("some objects", func() error {
		got := 0
		for _, name := range l.listMaps() {
			if strings.Contains(name, mark) {
				got++
			}
		}
		if got < n {
			return fmt.Errorf("%d objects of %d", got, n)
		}
		return nil
	})
}

func (l *lab) countMaps() int {
	l.t.Helper()
	return len(l.listMaps())
}

func (l *lab) listMaps() []string {
	l.t.Helper()
	list, err := l.client.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(l.ns).
		List(context.Background(), metav1.ListOptions{LabelSelector: "bulk=yes"})
	if err != nil {
		l.t.Fatal(err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.GetName())
	}
	return names
}

// TestManyFiles is the folder of a large site: 200 files, 2,000 objects. It reports time and memory for the bench.
func TestManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	const files, each = 200, 10
	l := newLab(t)
	l.start()
	before := liveHeap()
	for i := range files {
		text := l.maps(fmt.Sprintf("f%d", i), each)
		if i == 0 {
			text = namespaceYAML + text
		}
		l.put(fmt.Sprintf("d%d/f%d.yaml", i%10, i), text)
	}
	begin := time.Now()
	l.awaitMaps(files * each)
	applied := time.Since(begin)
	l.awaitAllReady(files)
	t.Logf("%d objects in %d files applied in %s, live heap %+.1f MiB", files*each, files, applied.Round(time.Millisecond), float64(liveHeap()-before)/(1<<20))

	l.halt()
	begin = time.Now()
	l.start()
	l.awaitAllReady(files)
	t.Logf("a second start with everything in place: %s until ready", time.Since(begin).Round(time.Millisecond))

	begin = time.Now()
	for i := range files {
		l.remove(fmt.Sprintf("d%d/f%d.yaml", i%10, i))
	}
	l.awaitMaps(0)
	t.Logf("removed in %s", time.Since(begin).Round(time.Millisecond))
}

func (l *lab) awaitMaps(want int) {
	l.t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for got := -1; got != want; got = l.countMaps() {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d objects, want %d", got, want)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *lab) awaitAllReady(want int) {
	l.t.Helper()
	l.await("all AddOns", func() error {
		records, err := listRecords(context.Background(), l.client)
		if err != nil {
			return err
		}
		ready := 0
		for _, r := range records {
			if r.Spec.Server == l.ns && !r.Spec.Packaged && readyCondition(&r).Reason == v1alpha1.ReasonApplied {
				ready++
			}
		}
		if ready != want {
			return fmt.Errorf("%d ready", ready)
		}
		return nil
	})
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
