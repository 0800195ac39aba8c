package autonomy

import (
	"context"
	"maps"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// Relation says that filters look at the labels and annotations of objects of one resource when they change those of another.
type Relation struct {
	// Of is what they look at. It is followed from the first Look on: a node that needs none of it does not ask for it.
	Of schema.GroupVersionResource
	// Touches is what is evaluated again when labels or annotations of an object of Of change.
	Touches schema.GroupResource
}

// relation is a Relation at work.
type relation struct {
	Relation
	once   sync.Once
	needed chan struct{}
}

// scopeKey is where the objects are: shared where the node's own parts follow them anyway.
func (r *relation) scopeKey() cache.Key {
	k := cache.Key{Asker: filter.Controllers, Resource: r.Of}
	if r.Of.Resource == "services" || r.Of.Resource == "namespaces" {
		k.Asker = ""
	}
	return k
}

// Look returns the metadata of an object that a relation of the settings is about, for a filter. An object that is not known, or not known yet, is
// not there; the filter is asked again when it is.
func (n *NodeAPI) Look(of schema.GroupVersionResource, namespace, name string) (*metav1.ObjectMeta, bool) {
	for _, r := range n.relations {
		if r.Of != of {
			continue
		}
		r.once.Do(func() { close(r.needed) })
		s := n.cache.Scope(r.scopeKey(), false)
		if s == nil {
			return nil, false
		}
		if o, _ := s.Get(object.Key(namespace, name)); o != nil {
			m, err := o.Meta()
			return m, err == nil
		}
	}
	return nil, false
}

// relate follows what a relation is about, until ctx is done.
func (n *NodeAPI) relate(ctx context.Context, r *relation) {
	select {
	case <-ctx.Done():
		return
	case <-r.needed:
	}
	s := n.cache.Scope(r.scopeKey(), true)
	defer s.Use(credential(n.nodes.Controller))()
	known := map[string]*metav1.ObjectMeta{}
	for ctx.Err() == nil {
		if err := s.Await(ctx); err != nil {
			select { // until there is something to know
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		w, first, err := s.Watch(cache.View{}, 0)
		for err == nil {
			if differs(known, first) {
				n.chain.Reevaluate(r.Touches)
			}
			first, err = w.Next(ctx)
		}
	}
}

// differs takes over events, and says whether labels or annotations are others than before.
func differs(known map[string]*metav1.ObjectMeta, events []object.Event) bool {
	changed := false
	for _, e := range events {
		m, err := e.Object.Meta()
		if err != nil {
			continue
		}
		old := known[e.Object.Key()]
		if e.Type == "DELETED" {
			delete(known, e.Object.Key())
		} else {
			known[e.Object.Key()] = &metav1.ObjectMeta{Labels: m.Labels, Annotations: m.Annotations}
		}
		changed = changed || old == nil || e.Type == "DELETED" || !maps.Equal(old.Labels, m.Labels) || !maps.Equal(old.Annotations, m.Annotations)
	}
	return changed
}
