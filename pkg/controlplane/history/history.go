// Package history lets watches resume from further back than the API server's memory of events, which a restart empties: what is missing there is
// read from the datastore, which keeps every change for the time between compactions. Nodes that come back after an outage, or after a restart
// of their server, are then told what changed, instead of being sent to list everything again. Only controlplane imports it.
package history

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
)

// together is how many watches read from the datastore at once; more wait for their turn, so that many nodes that return together do not fill
// the memory.
const together = 16

// Keep has the storage of all resources that in configures resume watches from the datastore.
func Keep(in generic.RESTOptionsGetter) generic.RESTOptionsGetter {
	return getter{next: in, slots: make(chan struct{}, together)}
}

type getter struct {
	next  generic.RESTOptionsGetter
	slots chan struct{}
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (g getter) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := g.next.GetRESTOptions(resource, example)
	if err == nil {
		o.Decorator = g.decorate(o.Decorator)
	}
	return o, err
}

// decorate extends storage that has a cache of watches; without one, all watches are the datastore's.
func (g getter) decorate(next generic.StorageDecorator) generic.StorageDecorator {
	return func(config *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
		attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		made, destroy, err := next(config, prefix, keyFunc, newFunc, newListFunc, attributes, triggers, indexers)
		cached, ok := made.(*cacher.CacheDelegator)
		if err != nil || !ok {
			return made, destroy, err
		}
		open := func() (storage.Interface, factory.DestroyFunc, error) {
			return generic.NewRawStorage(config, newFunc, newListFunc, prefix)
		}
		return &store{CacheDelegator: cached, slots: g.slots, open: open}, destroy, nil
	}
}

// store is a cached storage whose watches may begin before its cache does.
type store struct {
	*cacher.CacheDelegator
	slots chan struct{}
	open  func() (storage.Interface, factory.DestroyFunc, error)
	pasts pasts

	mu    sync.Mutex
	users int
	raw   storage.Interface // while there are users
	done  factory.DestroyFunc
}

// Watch implements storage.Interface.
func (s *store) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	if !resumes(opts) {
		return s.CacheDelegator.Watch(ctx, key, opts)
	}
	first, w, err := s.begin(ctx, key, opts)
	if err != nil || first == nil {
		return w, err
	}
	if !expired(*first) {
		r := newResumed(ctx, s, key, opts)
		go r.follow(first, w)
		return r, nil
	}
	w.Stop()
	if w := s.fromPast(ctx, key, opts); w != nil {
		return w, nil
	}
	r := newResumed(ctx, s, key, opts)
	go r.resume()
	return r, nil
}

// begin is a watch of the cache, and its first event if that is there at once, as a refusal is.
func (s *store) begin(ctx context.Context, key string, opts storage.ListOptions) (*watch.Event, watch.Interface, error) {
	w, err := s.CacheDelegator.Watch(ctx, key, opts)
	if err != nil {
		return nil, nil, err
	}
	select {
	case first, ok := <-w.ResultChan():
		if ok {
			return &first, w, nil
		}
	default:
	}
	return nil, w, nil
}

// resumes says whether a watch is to begin at a version of the past.
func resumes(o storage.ListOptions) bool {
	return o.ResourceVersion != "" && o.ResourceVersion != "0" && (o.SendInitialEvents == nil || !*o.SendInitialEvents)
}

func expired(e watch.Event) bool {
	status, ok := e.Object.(*metav1.Status)
	return ok && e.Type == watch.Error && (status.Reason == metav1.StatusReasonExpired || status.Reason == metav1.StatusReasonGone)
}

// use returns the datastore without a cache, until release is called by all who use it.
func (s *store) use() (raw storage.Interface, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		if s.raw, s.done, err = s.open(); err != nil {
			return nil, nil, err
		}
	}
	s.users++
	return s.raw, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 {
			s.done()
			s.raw, s.done = nil, nil
		}
	}, nil
}
