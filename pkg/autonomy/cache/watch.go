package cache

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// View is how a reader sees a scope: selected, and through the filters.
type View struct {
	Selector Selector
	Chain    *filter.Chain
	Request  filter.Request
}

// See returns an object as the reader sees it, or nil.
func (v View) See(o *object.Object) (*object.Object, error) {
	if o == nil || !v.Selector.Matches(o) {
		return nil, nil
	}
	if !v.Chain.Applies(v.Request) {
		return o, nil
	}
	decoded, err := o.Decode()
	if err != nil {
		return nil, err
	}
	changed := v.Chain.Change(v.Request, decoded)
	if changed == nil {
		return nil, nil
	}
	if changed == decoded {
		return o, nil
	}
	return object.Of(o.Kind, changed)
}

// List returns what the reader sees, ordered by key, and the kind of the items.
func (s *Scope) List(v View) (*object.List, error) {
	s.mu.Lock()
	l := &object.List{Kind: s.kind, Version: s.version}
	all := s.all()
	s.mu.Unlock()
	for _, o := range all {
		seen, err := v.See(o)
		if err != nil {
			return nil, err
		}
		if seen != nil {
			l.Items = append(l.Items, seen)
		}
	}
	return l, nil
}

// all is what is shown, ordered by key. The lock is held.
func (s *Scope) all() []*object.Object {
	out := make([]*object.Object, 0, len(s.entries))
	for _, e := range s.entries {
		if o := e.shown(); o != nil {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *object.Object) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// Watch is one reader that follows a scope. Its methods are for one goroutine.
type Watch struct {
	scope *Scope
	view  View
	next  uint64
	// seen holds what the reader has, when filters may change their mind about it; again says that they did.
	seen  map[string]uint64
	again <-chan struct{}
}

// Kind is what the watch is about.
func (w *Watch) Kind() schema.GroupVersionKind {
	w.scope.mu.Lock()
	defer w.scope.mu.Unlock()
	return w.scope.kind
}

// Version is up to where the scope follows the server.
func (w *Watch) Version() uint64 {
	w.scope.mu.Lock()
	defer w.scope.mu.Unlock()
	return w.scope.version
}

// Watch begins to follow the scope, and returns what the reader must be told first: everything there is when since is 0, else what
// changed. It fails with an Expired error when that is not known any more.
func (s *Scope) Watch(v View, since uint64) (*Watch, []object.Event, error) {
	s.mu.Lock()
	if since != 0 && since < s.floor {
		s.mu.Unlock()
		return nil, nil, apierrors.NewResourceExpired("too old resource version: list again")
	}
	all := s.all()
	var gone []change
	for _, c := range s.changes {
		if e := s.entries[c.key()]; c.now == nil && c.version > since && since != 0 && e.shown() == nil {
			gone = append(gone, c)
		}
	}
	modified := func(o *object.Object) bool { return s.entries[o.Key()].local != nil }
	var touched []*object.Object
	for _, o := range all {
		if o.Version > since || modified(o) {
			touched = append(touched, o)
		}
	}
	w := &Watch{scope: s, view: v, next: s.next}
	s.mu.Unlock()
	if v.Chain.Applies(v.Request) {
		w.seen, w.again = map[string]uint64{}, v.Chain.Changed(v.Request.Resource.GroupResource())
		touched = all
	}
	events, err := w.first(touched, gone, since)
	return w, events, err
}

func (c change) key() string {
	if c.now != nil {
		return c.now.Key()
	}
	return c.before.Key()
}

// first is what a reader is told when it begins.
func (w *Watch) first(touched []*object.Object, gone []change, since uint64) ([]object.Event, error) {
	kind := watch.Added
	if since != 0 {
		kind = watch.Modified // readers take either
	}
	var events []object.Event
	for _, c := range gone {
		events = append(events, object.Event{Type: watch.Deleted, Object: c.deleted()})
	}
	for _, o := range touched {
		seen, err := w.view.See(o)
		switch {
		case err != nil:
			return nil, err
		case seen != nil:
			w.note(seen)
			events = append(events, object.Event{Type: kind, Object: seen})
		case since != 0: // it may have been selected or shown before
			events = append(events, object.Event{Type: watch.Deleted, Object: o})
		}
	}
	return events, nil
}

func (w *Watch) note(o *object.Object) {
	if w.seen != nil {
		w.seen[o.Key()] = sum(o)
	}
}

func sum(o *object.Object) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(o.Raw) // it never fails
	return h.Sum64()
}

// deleted is the last state of an object that is gone, with the version of its end.
func (c change) deleted() *object.Object {
	last := *c.before
	if c.version > last.Version {
		last.Version = c.version
	}
	return &last
}

var errLag = errors.New("watch lags behind")

// Next waits for changes, and returns what the reader must be told. It fails when ctx is done, and with an Expired error when the reader was too
// slow.
func (w *Watch) Next(ctx context.Context) ([]object.Event, error) {
	for {
		w.scope.mu.Lock()
		changed := w.scope.changed
		todo, err := w.take()
		w.scope.mu.Unlock()
		if err != nil {
			return nil, apierrors.NewResourceExpired("the watch was too slow: list again")
		}
		var events []object.Event
		for _, c := range todo {
			e, err := w.tell(c)
			if err != nil {
				return nil, err
			}
			events = append(events, e...)
		}
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.again:
			w.again = w.view.Chain.Changed(w.view.Request.Resource.GroupResource())
			if events, err := w.reevaluate(); err != nil || len(events) > 0 {
				return events, err
			}
		case <-changed:
		}
	}
}

// take returns the changes since the last call. The scope's lock is held.
func (w *Watch) take() ([]change, error) {
	behind := w.scope.next - w.next
	if behind > uint64(len(w.scope.changes)) {
		return nil, errLag
	}
	w.next = w.scope.next
	return slices.Clone(w.scope.changes[len(w.scope.changes)-int(behind):]), nil
}

// tell is what one change means for the reader.
func (w *Watch) tell(c change) ([]object.Event, error) {
	now, err := w.view.See(c.now)
	if err != nil {
		return nil, err
	}
	had := w.had(c)
	switch {
	case now != nil && !had:
		w.note(now)
		return []object.Event{{Type: watch.Added, Object: now}}, nil
	case now != nil:
		w.note(now)
		return []object.Event{{Type: watch.Modified, Object: now}}, nil
	case had && c.now != nil: // it is not selected, or hidden, from now on
		delete(w.seen, c.key())
		return []object.Event{{Type: watch.Deleted, Object: c.now}}, nil
	case had:
		delete(w.seen, c.key())
		return []object.Event{{Type: watch.Deleted, Object: c.deleted()}}, nil
	}
	return nil, nil
}

// had says whether the reader has the object of a change.
func (w *Watch) had(c change) bool {
	if w.seen != nil {
		_, ok := w.seen[c.key()]
		return ok
	}
	return c.before != nil && w.view.Selector.Matches(c.before)
}

// reevaluate compares what the reader has with what it should see now.
func (w *Watch) reevaluate() ([]object.Event, error) {
	w.scope.mu.Lock()
	all := w.scope.all()
	w.scope.mu.Unlock()
	var events []object.Event
	for _, o := range all {
		seen, err := w.view.See(o)
		if err != nil {
			return nil, err
		}
		old, had := w.seen[o.Key()]
		switch {
		case seen == nil && had:
			delete(w.seen, o.Key())
			events = append(events, object.Event{Type: watch.Deleted, Object: o})
		case seen != nil && !had:
			w.note(seen)
			events = append(events, object.Event{Type: watch.Added, Object: seen})
		case seen != nil && old != sum(seen):
			w.note(seen)
			events = append(events, object.Event{Type: watch.Modified, Object: seen})
		}
	}
	return events, nil
}
