package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

func pastFrom(from, to uint64) *past {
	p := &past{from: from, to: to}
	for v := from + 1; v <= to; v++ {
		p.events = append(p.events, event{watch.Event{Type: watch.Added}, v})
	}
	return p
}

func TestAfter(t *testing.T) {
	p := pastFrom(10, 20)
	for version, want := range map[uint64]int{10: 10, 15: 5, 20: 0, 25: 0} {
		if got := p.after(version); len(got) != want || want > 0 && got[0].version != version+1 {
			t.Errorf("after %d: %d events", version, len(got))
		}
	}
}

// TestOneReadingForAll has many watches resume at once, from versions that differ.
func TestOneReadingForAll(t *testing.T) {
	var all pasts
	var reads atomic.Int32
	var work sync.WaitGroup
	for i := range uint64(100) {
		work.Go(func() {
			version := 100 + i%2
			p := all.shelf("/services").get(t.Context(), version, func(context.Context) (*past, error) {
				reads.Add(1)
				return pastFrom(version, 200), nil
			})
			if p == nil || p.from > version || p.to != 200 {
				t.Errorf("%d: %+v", version, p)
			}
		})
	}
	work.Wait()
	if n := reads.Load(); n < 1 || n > 2 {
		t.Errorf("%d readings", n)
	}
}

func TestWhatIsNotShared(t *testing.T) {
	var all pasts
	reads := 0
	get := func(version uint64, p *past, err error) *past {
		return all.shelf("/services").get(t.Context(), version, func(context.Context) (*past, error) {
			reads++
			return p, err
		})
	}
	if get(5, nil, errors.New("no datastore")) != nil || get(5, nil, nil) != nil || reads != 2 {
		t.Errorf("%d readings", reads)
	}
	if get(4, pastFrom(4, 9), nil) != nil || reads != 2 { // from 5 on it was too much
		t.Errorf("%d readings", reads)
	}
	if get(6, pastFrom(6, 9), nil) == nil || get(7, nil, nil) == nil || reads != 3 {
		t.Errorf("%d readings", reads)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s := all.shelf("/services")
	s.turn <- struct{}{}
	if s.get(gone, 6, nil) != nil {
		t.Error("a past for nobody")
	}
	one := storage.Everything
	one.Field = fields.OneTermEqualSelector("metadata.name", "a")
	for name, c := range map[string]struct {
		opts storage.ListOptions
		want bool
	}{
		"all of a kind": {storage.ListOptions{Recursive: true, Predicate: storage.Everything}, true},
		"one object":    {storage.ListOptions{Predicate: storage.Everything}, false},
		"a selection":   {storage.ListOptions{Recursive: true, Predicate: one}, false},
	} {
		if got := everything(c.opts); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestReplay(t *testing.T) {
	r := newResumed(t.Context(), nil, "", storage.ListOptions{})
	w := watch.NewFakeWithChanSize(1, false)
	w.Add(&corev1.Pod{})
	w.Stop()
	go r.replay(pastFrom(0, 15).events, nil, w)
	n := 0
	for range r.ResultChan() {
		n++
	}
	if n != 16 {
		t.Errorf("%d events", n)
	}
}

func TestEncodedOnce(t *testing.T) {
	o := &object{Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}
	calls := 0
	encode := func(got runtime.Object, w io.Writer) error {
		calls++
		if got == o.Object || got.(*corev1.Pod).Name != "a" {
			t.Error("what is encoded must be a copy")
		}
		_, err := fmt.Fprint(w, "form ", calls)
		return err
	}
	for _, id := range []runtime.Identifier{"json", "proto", "json"} {
		var out bytes.Buffer
		if err := o.CacheEncode(id, encode, &out); err != nil || out.Len() == 0 {
			t.Error(out.String(), err)
		}
	}
	if calls != 2 || o.GetObjectMeta().GetName() != "a" {
		t.Errorf("%d calls", calls)
	}
	if err := o.CacheEncode("bad", func(runtime.Object, io.Writer) error { return io.ErrShortWrite }, io.Discard); err == nil {
		t.Error("a failure was kept back")
	}
}
