package router

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/rules/plan"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// settle lets changes that come together be taken together.
	settle = 100 * time.Millisecond
	// lookAgain is how often it is tried again what failed.
	lookAgain  = 5 * time.Second
	askTimeout = 10 * time.Second
)

// watch keeps the routes as the rules say.
func (r *Router) watch(ctx context.Context) {
	changed := make(chan struct{}, 1)
	endpoints, rules := newShelf[v1.RuleEndpoint](changed), newShelf[v1.Rule](changed)
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { kube.Reflect(ctx, r.api, v1.RuleEndpoints(), "", endpoints) })
	parts.Go(func() { kube.Reflect(ctx, r.api, v1.Rules(), "", rules) })
	said := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		if e, ok := endpoints.list(); ok {
			if l, ok := rules.list(); ok {
				said = r.compile(e, l, said)
			}
		}
	}
}

// compile takes over rules, and says of those that do not work why; said is what was said before.
func (r *Router) compile(endpoints []*v1.RuleEndpoint, rules []*v1.Rule, said map[string]string) map[string]string {
	routes, problems := plan.Compile(endpoints, rules)
	r.routes.Store(&routes)
	saying := map[string]string{}
	for _, p := range problems {
		saying[p.Rule] = p.Reason
		if said[p.Rule] != p.Reason {
			r.status.add(p.Rule, 0, 0, "the rule does not work: "+p.Reason)
		}
	}
	plans := map[string]wire.Plan{}
	for _, route := range routes {
		p := plans[route.Node]
		switch route.Source {
		case v1.EventBus:
			p.Topics = append(p.Topics, wire.Topic{Rule: route.Key(), Filter: route.Filter})
		case v1.ServiceBus:
			p.Services = append(p.Services, wire.Service{Rule: route.Key(), TargetURL: route.TargetURL})
		default:
			continue
		}
		plans[route.Node] = p
	}
	r.mu.Lock()
	r.plans = plans
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
	return saying
}

// shelf keeps what a watch brings, without what no decision reads.
type shelf[T v1.Rule | v1.RuleEndpoint] struct {
	changed chan<- struct{}

	mu     sync.Mutex
	things map[string]*T
	whole  bool // all were there once
}

func newShelf[T v1.Rule | v1.RuleEndpoint](changed chan<- struct{}) *shelf[T] {
	return &shelf[T]{changed: changed, things: map[string]*T{}}
}

func (s *shelf[T]) list() (out []*T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.things {
		out = append(out, t)
	}
	return out, s.whole
}

func (s *shelf[T]) change(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

func (s *shelf[T]) put(obj any) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	u.SetManagedFields(nil)
	unstructured.RemoveNestedField(u.Object, "status")
	t := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, t); err != nil {
		return err
	}
	s.things[u.GetNamespace()+"/"+u.GetName()] = t
	return nil
}

// Add implements cache.ReflectorStore.
func (s *shelf[T]) Add(obj any) error { return s.change(func() error { return s.put(obj) }) }

// Update implements cache.ReflectorStore.
func (s *shelf[T]) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s *shelf[T]) Delete(obj any) error {
	return s.change(func() error {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			delete(s.things, u.GetNamespace()+"/"+u.GetName())
		}
		return nil
	})
}

// Replace implements cache.ReflectorStore.
func (s *shelf[T]) Replace(objs []any, _ string) error {
	return s.change(func() error {
		s.things, s.whole = map[string]*T{}, true
		for _, obj := range objs {
			if err := s.put(obj); err != nil {
				return err
			}
		}
		return nil
	})
}

// Resync implements cache.ReflectorStore.
func (*shelf[T]) Resync() error { return nil }
