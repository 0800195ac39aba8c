package ingress

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/kedge-io/kedge/pkg/ingress/route"
	"github.com/kedge-io/kedge/pkg/kube"
)

// Resources that are watched.
const (
	ingresses  = "ingresses"
	classes    = "ingressclasses"
	services   = "services"
	endpoints  = "endpointslices"
	secrets    = "secrets"
	namespaces = "namespaces"
)

func gatewayKind() schema.GroupVersionResource {
	return gatewayv1.SchemeGroupVersion.WithResource("gateways")
}
func gatewayClassKind() schema.GroupVersionResource {
	return gatewayv1.SchemeGroupVersion.WithResource("gatewayclasses")
}
func routeKind() schema.GroupVersionResource {
	return gatewayv1.SchemeGroupVersion.WithResource("httproutes")
}
func grantKind() schema.GroupVersionResource {
	return gatewayv1beta1.SchemeGroupVersion.WithResource("referencegrants")
}

// stores are objects of several resources, kept current.
type stores struct {
	wake func()

	mu    sync.Mutex
	by    map[string]cache.Store
	loops []cache.Controller
}

func newStores(wake func()) *stores { return &stores{wake: wake, by: map[string]cache.Store{}} }

// watch adds a resource of Kubernetes.
func (s *stores) watch(client rest.Interface, resource string, example runtime.Object) {
	s.add(resource, example, cache.NewFilteredListWatchFromClient(client, resource, metav1.NamespaceAll, func(*metav1.ListOptions) {}))
}

// watchNames adds a resource of which metadata is enough.
func (s *stores) watchNames(client metadata.Interface, resource string) {
	r := client.Resource(corev1.SchemeGroupVersion.WithResource(resource))
	s.add(resource, &metav1.PartialObjectMetadata{}, &cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return r.Watch(ctx, o) },
	})
}

// watchDynamic adds a resource that is defined in the cluster.
func (s *stores) watchDynamic(client dynamic.Interface, resource schema.GroupVersionResource) {
	s.add(resource.Resource, &unstructured.Unstructured{}, kube.Source(client.Resource(resource), ""))
}

func (s *stores) add(resource string, example runtime.Object, lw cache.ListerWatcher) {
	wake := func(any) { s.wake() }
	store, loop := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: example, Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[resource] = store
	s.loops = append(s.loops, loop)
}

// run keeps the stores current until ctx is done.
func (s *stores) run(ctx context.Context) {
	s.mu.Lock()
	loops := s.loops
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range loops {
		wg.Go(func() { l.RunWithContext(ctx) })
	}
	if cache.WaitForCacheSync(ctx.Done(), s.synced) {
		s.wake()
	}
	wg.Wait()
}

func (s *stores) synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.loops {
		if !l.HasSynced() {
			return false
		}
	}
	return true
}

func (s *stores) list(resource string) []any {
	s.mu.Lock()
	store := s.by[resource]
	s.mu.Unlock()
	if store == nil {
		return nil
	}
	return store.List()
}

func typed[T any](s *stores, resource string) []T {
	var out []T
	for _, o := range s.list(resource) {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// slim keeps of an object what decisions read. Objects of the Gateway API become values of their types.
func slim(o any) (any, error) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		return gatewayObject(u)
	}
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	switch o := o.(type) {
	case *corev1.Service:
		o.Annotations, o.Status = nil, corev1.ServiceStatus{}
	case *discoveryv1.EndpointSlice:
		o.Annotations = nil
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			*e = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions}
		}
	case *metav1.PartialObjectMetadata:
		o.Annotations, o.OwnerReferences = nil, nil
	}
	return o, nil
}

func gatewayObject(u *unstructured.Unstructured) (any, error) {
	u.SetManagedFields(nil)
	var out runtime.Object
	switch u.GetKind() {
	case "Gateway":
		out = &gatewayv1.Gateway{}
	case "GatewayClass":
		out = &gatewayv1.GatewayClass{}
	case "HTTPRoute":
		out = &gatewayv1.HTTPRoute{}
	case "ReferenceGrant":
		out = &gatewayv1beta1.ReferenceGrant{}
	default:
		return u, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	return out, nil
}

// all is what is known while there is something to serve.
type all struct {
	ingresses, gateways *stores // of the controller
	kube, gatewayAPI    *stores
	pairs               *pairs
	fallback            *tls.Certificate
}

// start begins to watch everything else. The returned function ends it.
func (c *Controller) start(ctx context.Context, running *sync.WaitGroup) (*all, func(), error) {
	fallback, err := selfSigned()
	if err != nil {
		return nil, nil, fmt.Errorf("make fallback certificate: %w", err)
	}
	a := &all{kube: newStores(c.wake), gatewayAPI: newStores(c.wake), pairs: newPairs(), fallback: fallback}
	ctx, stop := context.WithCancel(ctx)
	a.kube.watch(c.client.NetworkingV1().RESTClient(), classes, &networkingv1.IngressClass{})
	a.kube.watch(c.client.CoreV1().RESTClient(), services, &corev1.Service{})
	a.kube.watch(c.client.DiscoveryV1().RESTClient(), endpoints, &discoveryv1.EndpointSlice{})
	a.kube.watchNames(c.metadata, secrets)
	a.kube.watchNames(c.metadata, namespaces)
	running.Go(func() { a.kube.run(ctx) })
	running.Go(func() {
		if !c.awaitGatewayAPI(ctx) {
			return
		}
		for _, kind := range []schema.GroupVersionResource{gatewayClassKind(), routeKind(), grantKind()} {
			a.gatewayAPI.watchDynamic(c.dynamic, kind)
		}
		a.gatewayAPI.run(ctx)
	})
	return a, stop, nil
}

// awaitGatewayAPI waits until the kinds of the Gateway API are defined.
func (c *Controller) awaitGatewayAPI(ctx context.Context) bool {
	wait := time.Second
	for ctx.Err() == nil {
		defined := 0
		for _, version := range []schema.GroupVersion{gatewayv1.SchemeGroupVersion, gatewayv1beta1.SchemeGroupVersion} {
			list, err := c.client.Discovery().ServerResourcesForGroupVersion(version.String())
			if err != nil {
				continue
			}
			for _, r := range list.APIResources {
				switch version.WithResource(r.Name) {
				case gatewayKind(), gatewayClassKind(), routeKind(), grantKind():
					defined++
				}
			}
		}
		if defined == 4 {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, time.Minute)
		}
	}
	return false
}

func (a *all) synced() bool { return a.kube.synced() && a.gatewayAPI.synced() }

// world is everything that is known, for a decision.
func (a *all) world() *route.World {
	w := &route.World{
		Ingresses: typed[*networkingv1.Ingress](a.ingresses, ingresses), IngressClasses: typed[*networkingv1.IngressClass](a.kube, classes),
		GatewayClasses: typed[*gatewayv1.GatewayClass](a.gatewayAPI, gatewayClassKind().Resource),
		Gateways:       typed[*gatewayv1.Gateway](a.gateways, gatewayKind().Resource),
		Routes:         typed[*gatewayv1.HTTPRoute](a.gatewayAPI, routeKind().Resource),
		Grants:         typed[*gatewayv1beta1.ReferenceGrant](a.gatewayAPI, grantKind().Resource),
		Services:       map[string]*corev1.Service{}, Slices: map[string][]*discoveryv1.EndpointSlice{}, Namespaces: map[string]labels.Set{},
	}
	for _, s := range typed[*corev1.Service](a.kube, services) {
		w.Services[s.Namespace+"/"+s.Name] = s
	}
	for _, s := range typed[*discoveryv1.EndpointSlice](a.kube, endpoints) {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		w.Slices[key] = append(w.Slices[key], s)
	}
	for _, n := range typed[*metav1.PartialObjectMetadata](a.kube, namespaces) {
		w.Namespaces[n.Name] = maps.Clone(n.Labels)
	}
	return w
}

// version is of a Secret; empty when there is none.
func (a *all) version(namespace, name string) string {
	a.kube.mu.Lock()
	store := a.kube.by[secrets]
	a.kube.mu.Unlock()
	o, found, err := store.GetByKey(namespace + "/" + name)
	if m, ok := o.(*metav1.PartialObjectMetadata); ok && found && err == nil {
		return m.ResourceVersion
	}
	return ""
}
