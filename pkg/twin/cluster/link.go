// Package cluster is the way between a node's twins and the API: devices of the node come down by a watch, reports go up as one patch for
// each device and interval, and wait on disk, in order, while the API cannot be reached. Rooms of twin import it.
package cluster

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/twin/hub"
)

const (
	// firstRetry and lastRetry bound the pause between two attempts to reach the API.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
	// askTimeout bounds one request.
	askTimeout = 10 * time.Second
)

// Config says how much the API is asked.
type Config struct {
	Hub    *hub.Hub
	Client dynamic.Interface
	// Interval is the shortest time between two reports of one device. Default 1 s.
	Interval time.Duration
	// Rate is the number of reports per second that all devices of the node share. Default 25.
	Rate int
	// Buffer is the number of bytes of reports that may wait. Default 32 MiB.
	Buffer int64
	Log    *slog.Logger
}

// Link is both directions.
type Link struct {
	cfg     Config
	mu      sync.Mutex
	refused map[string]bool   // by device: the API would not have its report, and that was said
	floors  map[string]uint64 // by device: older versions of the object are not looked at, because this node has written a newer one
}

// New starts nothing.
func New(cfg Config) *Link {
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Rate == 0 {
		cfg.Rate = 25
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 32 << 20
	}
	return &Link{cfg: cfg, floors: map[string]uint64{}, refused: map[string]bool{}}
}

// Run works until ctx is done.
func (l *Link) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		if l.awaitDevice(ctx) {
			kube.Reflect(ctx, l.cfg.Client, v1beta1.Models(), "", modelSink(l))
		}
	})
	wg.Go(func() {
		kube.Reflect(ctx, l.cfg.Client, v1beta1.Devices(), "spec.nodeName="+l.cfg.Hub.Node(), deviceSink(l))
	})
	wg.Go(func() { l.upload(ctx) })
	newPublisher(l).run(ctx)
	wg.Wait()
	return nil
}

// awaitDevice waits for the first device: a node without any needs no models.
func (l *Link) awaitDevice(ctx context.Context) bool {
	changes := l.cfg.Hub.Subscribe(hub.Specification, true)
	defer changes.Close()
	for l.cfg.Hub.Len() == 0 {
		if !changes.Await(ctx) {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// sink takes over objects as a watch brings them; it keeps none.
type sink struct {
	put    func(*unstructured.Unstructured) error
	remove func(key string) error
	keys   func() []string
}

func keyOf(u *unstructured.Unstructured) string { return hub.Key(u.GetNamespace(), u.GetName()) }

// Add implements cache.ReflectorStore.
func (s sink) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s sink) Update(obj any) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return s.put(u)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (s sink) Delete(obj any) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return s.remove(keyOf(u))
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (s sink) Replace(objs []any, _ string) error {
	there := map[string]bool{}
	for _, obj := range objs {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			there[keyOf(u)] = true
			if err := s.put(u); err != nil {
				return err
			}
		}
	}
	for _, key := range s.keys() {
		if !there[key] {
			if err := s.remove(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (sink) Resync() error { return nil }

func modelSink(l *Link) sink {
	return sink{
		put: func(u *unstructured.Unstructured) error {
			m, err := v1beta1.Decode[v1beta1.DeviceModel](u)
			if err == nil {
				err = l.cfg.Hub.PutModel(m)
			}
			l.complain("model", keyOf(u), err)
			return nil
		},
		remove: l.cfg.Hub.RemoveModel, keys: l.cfg.Hub.Models,
	}
}

func deviceSink(l *Link) sink {
	return sink{
		put: func(u *unstructured.Unstructured) error {
			if version(u) >= l.floor(keyOf(u)) {
				l.complain("device", keyOf(u), l.putDevice(u))
			}
			return nil
		},
		remove: func(key string) error {
			l.setFloor(key, 0)
			return l.cfg.Hub.RemoveDevice(key)
		},
		keys: func() (keys []string) {
			for _, v := range l.cfg.Hub.List() {
				keys = append(keys, v.Key)
			}
			return keys
		},
	}
}

func (l *Link) putDevice(u *unstructured.Unstructured) error {
	d, err := v1beta1.Decode[v1beta1.Device](u)
	if err != nil {
		return err
	}
	return l.cfg.Hub.PutDevice(d)
}

func (l *Link) complain(kind, key string, err error) {
	if err != nil {
		l.cfg.Log.Warn("not all of an object is taken over", "kind", kind, "object", key, "error", err)
	}
}

// version is the object's version as a number; versions of one kind can be compared.
func version(u *unstructured.Unstructured) uint64 {
	n, _ := strconv.ParseUint(u.GetResourceVersion(), 10, 64)
	return n
}

func (l *Link) floor(key string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floors[key]
}

func (l *Link) setFloor(key string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n == 0 {
		delete(l.floors, key)
		return
	}
	l.floors[key] = n
}
