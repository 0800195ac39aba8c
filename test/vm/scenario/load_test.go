package scenario

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// configMaps is the collection that the load writes to.
const configMaps = "/api/v1/namespaces/default/configmaps"

// configMap is one object of the load: its data says how often it was written.
type configMap struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion,omitempty"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

// fate is what the API server last acknowledged about an object, and what was asked since without an answer.
type fate struct {
	version  int  // of the data; 0 means never created
	deleted  bool // acknowledged
	asked    int  // version that may or may not be there
	deleting bool // a delete that may or may not have happened
}

// ledger is the host's memory of the load.
type ledger struct {
	mu      sync.Mutex
	objects map[string]fate
	acked   int
}

// change notes something about an object and returns the number of acknowledged writes.
func (l *ledger) change(name string, acked bool, f func(*fate)) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.objects[name]
	f(&o)
	l.objects[name] = o
	if acked {
		l.acked++
	}
	return l.acked
}

// write creates, updates and deletes ConfigMaps, and calls cut once when limit writes have been acknowledged; it goes on
// until the calls fail because the power went. A call that fails before is an error.
func (l *ledger) write(ctx context.Context, a *api, prefix string, workers, limit int, cut func()) error {
	reached, early := make(chan struct{}), make(chan error, workers)
	var once sync.Once
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 0; ; n++ {
				acked, err := l.life(ctx, a, fmt.Sprintf("%s-%d-%d", prefix, w, n), n)
				if err != nil {
					early <- err
					return
				}
				if acked >= limit {
					once.Do(func() { close(reached) })
				}
			}
		})
	}
	select {
	case <-reached:
		cut()
		wg.Wait()
		return nil
	case err := <-early:
		return fmt.Errorf("before the power cut: %w", err)
	}
}

// life creates an object, updates every second one and deletes every fourth.
func (l *ledger) life(ctx context.Context, a *api, name string, n int) (acked int, err error) {
	cm := configMap{APIVersion: "v1", Kind: "ConfigMap"}
	cm.Metadata.Name = name
	version := func(v int) map[string]string {
		return map[string]string{"version": strconv.Itoa(v), "fill": strings.Repeat(name, 20)}
	}
	step := func(method, path string, body any, asked, done func(*fate)) {
		if err != nil {
			return
		}
		l.change(name, false, asked)
		if err = a.do(ctx, method, path, body, nil); err == nil {
			acked = l.change(name, true, done)
		}
	}
	cm.Data = version(1)
	step(http.MethodPost, configMaps, cm, func(f *fate) { f.asked = 1 }, func(f *fate) { f.version = 1 })
	if n%2 == 0 {
		cm.Data = version(2)
		step(http.MethodPut, configMaps+"/"+name, cm, func(f *fate) { f.asked = 2 }, func(f *fate) { f.version = 2 })
	}
	if n%4 == 0 {
		step(http.MethodDelete, configMaps+"/"+name, nil, func(f *fate) { f.deleting = true }, func(f *fate) { f.deleted = true })
	}
	return acked, err
}

// verify compares everything acknowledged with what the API server has now.
func (l *ledger) verify(ctx context.Context, t *testing.T, a *api) {
	t.Helper()
	var list struct{ Items []configMap }
	if err := a.do(ctx, http.MethodGet, configMaps, nil, &list); err != nil {
		t.Fatalf("list after the power cut: %v", err)
	}
	found := map[string]int{}
	for _, cm := range list.Items {
		found[cm.Metadata.Name], _ = strconv.Atoi(cm.Data["version"])
	}
	wrong := 0
	for name, f := range l.objects {
		version, exists := found[name]
		if problem := f.check(version, exists); problem != "" {
			wrong++
			t.Errorf("%s: %s", name, problem)
		}
	}
	t.Logf("%d writes of %d objects were acknowledged, %d are lost", l.acked, len(l.objects), wrong)
}

// check names what is wrong with an object that has this version, or does not exist.
func (f fate) check(version int, exists bool) string {
	switch {
	case f.deleted && exists:
		return "an acknowledged delete is undone"
	case f.deleted || f.deleting && !exists:
		return ""
	case f.version > 0 && !exists:
		return "an acknowledged object is gone"
	case exists && version < f.version:
		return fmt.Sprintf("version %d is acknowledged, found %d", f.version, version)
	case exists && version > f.asked:
		return fmt.Sprintf("version %d was never asked for", version)
	}
	return ""
}

func TestFate(t *testing.T) {
	cases := []struct {
		fate    fate
		version int
		exists  bool
		good    bool
	}{
		{fate{asked: 1}, 0, false, true},
		{fate{asked: 1}, 1, true, true},
		{fate{version: 1, asked: 1}, 0, false, false},
		{fate{version: 1, asked: 2}, 1, true, true},
		{fate{version: 1, asked: 2}, 2, true, true},
		{fate{version: 2, asked: 2}, 1, true, false},
		{fate{version: 1, asked: 1}, 2, true, false},
		{fate{version: 2, asked: 2, deleting: true}, 0, false, true},
		{fate{version: 2, asked: 2, deleting: true}, 2, true, true},
		{fate{version: 2, asked: 2, deleting: true, deleted: true}, 2, true, false},
		{fate{version: 2, asked: 2, deleting: true, deleted: true}, 0, false, true},
	}
	for _, c := range cases {
		if problem := c.fate.check(c.version, c.exists); (problem == "") != c.good {
			t.Errorf("%+v: %q", c, problem)
		}
	}
}
