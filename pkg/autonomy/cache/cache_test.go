package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

func servicesResource() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("services")
}

func openCache(t *testing.T, path string) *Cache {
	t.Helper()
	l, err := link.New(link.Config{Server: "https://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Path: path, StoreKey: make([]byte, 32), Link: l, NodeName: "n", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(t *testing.T, name string, version uint64, app string) *object.Object {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "default", UID: types.UID("uid-" + name), ResourceVersion: object.FormatVersion(version), Labels: map[string]string{"app": app},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: strings.Repeat("m", 1000)}},
	}}
	o, err := object.Of(corev1.SchemeGroupVersion.WithKind("Service"), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Raw) > 500 {
		t.Fatalf("%d bytes: the managers of fields are kept", len(o.Raw))
	}
	return o
}

func list(version uint64, items ...*object.Object) *object.List {
	return &object.List{Kind: corev1.SchemeGroupVersion.WithKind("Service"), Version: version, Items: items}
}

// told is events in short: type, name and label.
func told(t *testing.T, events []object.Event) string {
	t.Helper()
	var out []string
	for _, e := range events {
		m, err := e.Object.Meta()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s=%s", e.Type, m.Name, m.Labels["app"]))
	}
	return strings.Join(out, ", ")
}

func next(t *testing.T, w *Watch, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events, err := w.Next(ctx)
	if got := told(t, events); err != nil || got != want {
		t.Errorf("told %q, %v; want %q", got, err, want)
	}
}

func TestWatchesSelectHere(t *testing.T) {
	s := openCache(t, filepath.Join(t.TempDir(), "db")).Scope(Key{Resource: servicesResource()}, true)
	s.Replace(list(10, service(t, "a", 5, "x"), service(t, "b", 6, "y")))
	selector, err := NewSelector("", "app=x", "")
	if err != nil {
		t.Fatal(err)
	}
	w, first, err := s.Watch(View{Selector: selector}, 0)
	if got := told(t, first); err != nil || got != "ADDED a=x" {
		t.Fatalf("first told %q, %v", got, err)
	}
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "b", 11, "x")})
	next(t, w, "ADDED b=x")
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "b", 12, "x")})
	next(t, w, "MODIFIED b=x")
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "a", 13, "y")})
	next(t, w, "DELETED a=y")
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "b", 11, "z")}) // old news
	s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "b", 14, "x")})
	next(t, w, "DELETED b=x")
	if w.Version() != 14 {
		t.Errorf("version %d", w.Version())
	}
}

func TestWatchesResume(t *testing.T) {
	s := openCache(t, filepath.Join(t.TempDir(), "db")).Scope(Key{Resource: servicesResource()}, true)
	s.Replace(list(10, service(t, "a", 5, "x"), service(t, "b", 6, "y"), service(t, "c", 7, "z")))
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "a", 12, "x2")})
	s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "b", 13, "y")})
	_, first, err := s.Watch(View{}, 10)
	if got := told(t, first); err != nil || got != "DELETED b=y, MODIFIED a=x2" {
		t.Errorf("since 10 told %q, %v", got, err)
	}
	_, first, err = s.Watch(View{}, 13)
	if got := told(t, first); err != nil || got != "" {
		t.Errorf("since 13 told %q, %v", got, err)
	}
	lagging, _, err := s.Watch(View{}, 13)
	if err != nil {
		t.Fatal(err)
	}
	for v := range uint64(history + 10) {
		s.Apply(object.Event{Type: watch.Added, Object: service(t, "d", 100+v, "x")})
		s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "d", 100+v, "x")})
	}
	if _, _, err = s.Watch(View{}, 13); !apierrors.IsResourceExpired(err) {
		t.Errorf("after a long history: %v", err)
	}
	if _, err := lagging.Next(t.Context()); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch that lags: %v", err)
	}
}

func TestFiltersChangeTheirMind(t *testing.T) {
	s := openCache(t, filepath.Join(t.TempDir(), "db")).Scope(Key{Resource: servicesResource()}, true)
	s.Replace(list(10, service(t, "a", 5, "x"), service(t, "b", 6, "y")))
	var hidden atomic.Value
	hidden.Store("b")
	chain := filter.NewChain(filter.Func{
		On: filter.For(servicesResource().GroupResource(), filter.KubeProxy),
		Do: func(_ filter.Request, o runtime.Object) runtime.Object {
			svc := o.(*corev1.Service)
			if svc.Name == hidden.Load() {
				return nil
			}
			svc = svc.DeepCopy()
			svc.Labels["app"] = "not " + hidden.Load().(string)
			return svc
		},
	})
	view := View{Chain: chain, Request: filter.Request{Asker: filter.KubeProxy, Resource: servicesResource()}}
	w, first, err := s.Watch(view, 0)
	if got := told(t, first); err != nil || got != "ADDED a=not b" {
		t.Fatalf("first told %q, %v", got, err)
	}
	hidden.Store("a")
	chain.Reevaluate(servicesResource().GroupResource())
	next(t, w, "DELETED a=x, ADDED b=not a")
	hidden.Store("none")
	chain.Reevaluate(servicesResource().GroupResource())
	next(t, w, "ADDED a=not none, MODIFIED b=not none")
	s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "a", 11, "x")})
	next(t, w, "DELETED a=x")
	other := View{Chain: chain, Request: filter.Request{Asker: filter.Kubelet, Resource: servicesResource()}}
	if l, err := s.List(other); err != nil || len(l.Items) != 1 || l.Items[0].Version != 6 {
		t.Errorf("the kubelet sees %v, %v", l, err)
	}
}

func TestCacheSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	c := openCache(t, path)
	key, half := Key{Resource: servicesResource(), Labels: "a=b"}, Key{Resource: servicesResource(), Namespace: "half"}
	s := c.Scope(key, true)
	s.Replace(list(10, service(t, "a", 5, "x"), service(t, "b", 6, "y")))
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "a", 12, "new")})
	s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "b", 13, "y")})
	c.Scope(half, true).See(service(t, "c", 3, "z"))
	c.SetValue("journal", "k", []byte("v"))
	c.SetValue("journal", "gone", []byte("v"))
	c.SetValue("journal", "gone", nil)
	for range 2 { // appended, and rewritten
		if err := c.store.Close(); err != nil {
			t.Fatal(err)
		}
		c = openCache(t, path)
		l, err := c.Scope(key, false).List(View{})
		if err != nil || len(l.Items) != 1 || l.Items[0].Version != 12 || l.Version != 13 || !c.Scope(key, false).Synced() {
			t.Fatalf("list is %+v, %v", l, err)
		}
		if c.Scope(half, false).Synced() {
			t.Error("a scope of which a part is known claims to be whole")
		}
		if v := c.Values("journal"); len(v) != 1 || string(v["k"]) != "v" {
			t.Errorf("values %v", v)
		}
		if err := c.store.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	_, first, err := c.Scope(key, false).Watch(View{}, 9)
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("a resume of before the restart: %v, %v", first, err)
	}
}

func TestLocalChangesAreShownUntilTheServerKnowsBetter(t *testing.T) {
	s := openCache(t, filepath.Join(t.TempDir(), "db")).Scope(Key{Resource: servicesResource()}, true)
	s.Replace(list(10, service(t, "a", 5, "x"), service(t, "b", 6, "y")))
	w, _, err := s.Watch(View{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.SetLocal(service(t, "a", 5, "local"))
	next(t, w, "MODIFIED a=local")
	if s.Local("default/a") == nil || s.Local("default/b") != nil || s.SetLocal(service(t, "new", 1, "x")) {
		t.Error("another object changed, or one appeared")
	}
	b, _ := s.Get("default/b")
	s.Hide(b)
	next(t, w, "DELETED b=y")
	s.Apply(object.Event{Type: watch.Deleted, Object: service(t, "b", 15, "y")})
	s.Apply(object.Event{Type: watch.Modified, Object: service(t, "a", 16, "server")})
	next(t, w, "MODIFIED a=server")
	if s.Local("default/a") != nil {
		t.Error("a change of the time without the server outlives the server's")
	}
}

func TestNothingIsKnownBeforeTheFirstList(t *testing.T) {
	c := openCache(t, filepath.Join(t.TempDir(), "db"))
	ctx, cancel := context.WithCancel(t.Context())
	var done = make(chan struct{})
	go func() { c.cfg.Link.Run(ctx); close(done) }() // no patience: it is down at once
	defer func() { cancel(); <-done }()
	s := c.Scope(Key{Resource: servicesResource()}, true)
	defer s.Use(link.Credential{Cert: "c"})()
	if err := s.Await(ctx); !errors.Is(err, ErrOffline) {
		t.Errorf("an empty scope while offline: %v", err)
	}
	s.Replace(list(10))
	if err := s.Await(ctx); err != nil {
		t.Errorf("a scope that is known to be empty: %v", err)
	}
}

func TestServicesAreSelectedByTheirFields(t *testing.T) {
	for ip, want := range map[string]bool{"None": false, "10.43.0.9": true, "": true} {
		o, err := object.Of(corev1.SchemeGroupVersion.WithKind("Service"), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "s", ResourceVersion: "1"}, Spec: corev1.ServiceSpec{ClusterIP: ip},
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSelector("", "", "spec.clusterIP!=None")
		if err != nil || !s.SupportedForServices() || s.Supported(false) {
			t.Fatalf("%+v, %v", s, err)
		}
		if got := s.Matches(o); got != want {
			t.Errorf("cluster IP %q: %v", ip, got)
		}
	}
}
