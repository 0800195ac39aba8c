package history

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

const (
	// keepTime is how long a past that was read serves watches that resume; nodes that return together do so within it.
	keepTime = time.Minute
	// readTime bounds the reading of a past; watches wait for it.
	readTime = 5 * time.Second
	// maxPast bounds how many events a past holds. Watches that missed more read them by themselves, and hold none.
	maxPast = 1000
)

// past is what happened to the objects below a key: everything after one version, up to another.
type past struct {
	from, to uint64
	events   []event
}

type event struct {
	watch.Event
	version uint64
}

// after is what happened after a version that is not before the past's first.
func (p *past) after(version uint64) []event {
	return p.events[sort.Search(len(p.events), func(i int) bool { return p.events[i].version > version }):]
}

// pasts are those of a storage that are being resumed from, by key, so that many watches that return together take one reading of the datastore.
// It is safe for concurrent use.
type pasts struct {
	mu    sync.Mutex
	byKey map[string]*shelf
}

// shelf holds the past below one key. Who has the turn may read it and replace it.
type shelf struct {
	turn chan struct{}
	past *past
	// long is a version from which on more happened than a past may hold.
	long uint64
}

// shelf returns that of a key, which stays for a while.
func (p *pasts) shelf(key string) *shelf {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byKey[key]
	if s == nil {
		s = &shelf{turn: make(chan struct{}, 1)}
		if p.byKey == nil {
			p.byKey = map[string]*shelf{}
		}
		p.byKey[key] = s
		time.AfterFunc(keepTime, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.byKey, key)
		})
	}
	return s
}

// get returns a past from a version on, which it reads if it must, or nil when there is none.
func (s *shelf) get(ctx context.Context, version uint64, read func(context.Context) (*past, error)) *past {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil
	}
	if s.past != nil && s.past.from <= version {
		return s.past
	}
	if version <= s.long {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime) // others want it too
	defer cancel()
	got, err := read(ctx)
	switch {
	case err != nil: // who asked finds out by itself
		return nil
	case got == nil:
		s.long = version
		return nil
	}
	s.past = got
	return got
}

// everything says whether a watch wants all that is below its key: only such share a past.
func everything(o storage.ListOptions) bool {
	return o.Recursive && o.Predicate.Empty() && o.Predicate.ShardSelector == nil
}

// fromPast is a watch that goes on after what it missed, or nil when it has to read that by itself.
func (s *store) fromPast(ctx context.Context, key string, opts storage.ListOptions) watch.Interface {
	version, err := strconv.ParseUint(opts.ResourceVersion, 10, 64)
	if err != nil || !everything(opts) {
		return nil
	}
	p := s.pasts.shelf(key).get(ctx, version, func(ctx context.Context) (*past, error) { return s.readPast(ctx, key, version) })
	if p == nil {
		return nil
	}
	opts.ResourceVersion = strconv.FormatUint(max(p.to, version), 10)
	first, w, err := s.begin(ctx, key, opts)
	if err != nil {
		return nil
	}
	missed := p.after(version)
	if first == nil && len(missed) == 0 {
		return w
	}
	r := newResumed(ctx, s, key, opts)
	go r.replay(missed, first, w)
	return r
}

// readPast reads what happened below a key after a version. It returns nil when that is too much to hold.
func (s *store) readPast(ctx context.Context, key string, version uint64) (*past, error) {
	raw, release, err := s.use()
	if err != nil {
		return nil, err
	}
	defer release()
	p := &past{from: version}
	opts := storage.ListOptions{ResourceVersion: strconv.FormatUint(version, 10), Recursive: true, Predicate: storage.Everything}
	bookmark, err := readUntilNow(ctx, raw, key, opts, func(e watch.Event) bool {
		v, err := raw.Versioner().ObjectResourceVersion(e.Object)
		if err != nil || e.Type == watch.Error || len(p.events) == maxPast {
			return false
		}
		p.events = append(p.events, event{watch.Event{Type: e.Type, Object: &object{Object: e.Object}}, v})
		return true
	})
	if err != nil || bookmark == nil {
		return nil, err
	}
	p.events = slices.Clip(p.events)
	p.to, err = raw.Versioner().ObjectResourceVersion(bookmark.Object)
	return p, err
}

// object is one that many watches send: it is encoded once for each form in which they do. See runtime.CacheableObject.
type object struct {
	runtime.Object
	mu    sync.Mutex
	forms map[runtime.Identifier][]byte
}

// GetObject implements runtime.CacheableObject.
func (o *object) GetObject() runtime.Object { return o.DeepCopyObject() }

// GetObjectMeta implements metav1.ObjectMetaAccessor.
func (o *object) GetObjectMeta() metav1.Object {
	m, _ := meta.Accessor(o.Object) // all that is stored has one
	return m
}

// CacheEncode implements runtime.CacheableObject.
func (o *object) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	data, err := o.encoded(id, encode)
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

func (o *object) encoded(id runtime.Identifier, encode func(runtime.Object, io.Writer) error) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if data, ok := o.forms[id]; ok {
		return data, nil
	}
	var out bytes.Buffer
	if err := encode(o.GetObject(), &out); err != nil {
		return nil, err
	}
	if o.forms == nil {
		o.forms = map[runtime.Identifier][]byte{}
	}
	o.forms[id] = out.Bytes()
	return out.Bytes(), nil
}
