// Package loadbalancer publishes the addresses of nodes as the external addresses of Services of type LoadBalancer.
// There is no pod and no virtual address: kube-proxy on every node already carries traffic for published addresses.
// Only the server mode may import it; it imports no other feature.
package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
)

// Class is the spec.loadBalancerClass of Services that want node addresses; a Service without a class wants them too.
const Class = "kedge.io/node-address"

const (
	// settle is how long changes are collected before they are looked at together.
	settle = 100 * time.Millisecond
	// retry is the time until the next attempt after a failed write.
	retry = 2 * time.Second
)

// Config says what the controller works with.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file of the server.
	Kubeconfig string
	// ReservedPorts are ports of the nodes that a Service must not take over, such as those of the API and of SSH.
	ReservedPorts []int32
	// Log receives what an operator should know.
	Log *slog.Logger
}

// Controller is the component "loadbalancer". Several of them may run at once: all come to the same result.
type Controller struct {
	cfg      Config
	client   kubernetes.Interface
	services cache.Store
	nodes    cache.Store
	slices   cache.Store
	loops    []cache.Controller
	changed  chan struct{}
	events   record.EventRecorder
	told     map[string]string // the last Event of each Service
}

// New checks cfg, connects nothing and starts nothing.
func New(cfg Config) (*Controller, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Kubeconfig == "" {
		return nil, errors.New("loadbalancer: Kubeconfig is empty: give the path of a kubeconfig file")
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load loadbalancer kubeconfig: %w", err)
	}
	rc = rest.AddUserAgent(rc, "kedge-loadbalancer")
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make loadbalancer client: %w", err)
	}
	c := &Controller{cfg: cfg, client: client, changed: make(chan struct{}, 1), told: map[string]string{}}
	c.services = c.watch(client.CoreV1().RESTClient(), "services", &corev1.Service{})
	c.nodes = c.watch(client.CoreV1().RESTClient(), "nodes", &corev1.Node{})
	c.slices = c.watch(client.DiscoveryV1().RESTClient(), "endpointslices", &discoveryv1.EndpointSlice{})
	return c, nil
}

// watch prepares a store that is kept current and wakes the loop on changes.
func (c *Controller) watch(client rest.Interface, resource string, example runtime.Object) cache.Store {
	wake := func(any) {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	store, loop := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(client, resource, metav1.NamespaceAll, func(*metav1.ListOptions) {}),
		ObjectType:    example,
		Transform:     slim,
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake},
	})
	c.loops = append(c.loops, loop)
	return store
}

// slim drops the large parts that no decision reads before an object is kept in memory.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	switch o := o.(type) {
	case *corev1.Node:
		o.Spec = corev1.NodeSpec{}
		o.Status = corev1.NodeStatus{Conditions: o.Status.Conditions, Addresses: o.Status.Addresses}
	case *discoveryv1.EndpointSlice:
		o.Ports = nil
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			*e = discoveryv1.Endpoint{NodeName: e.NodeName, Conditions: e.Conditions}
		}
	}
	return o, nil
}

// Name returns "loadbalancer".
func (c *Controller) Name() string { return "loadbalancer" }

// Run works until ctx is done. What it published stays.
func (c *Controller) Run(ctx context.Context) error {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	defer broadcaster.Shutdown()
	c.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kedge-loadbalancer"})
	var wg sync.WaitGroup
	for _, l := range c.loops {
		wg.Go(func() { l.RunWithContext(ctx) })
	}
	cache.WaitForCacheSync(ctx.Done(), func() bool { return c.Ready(ctx) == nil })
	wait := time.NewTimer(0)
	defer wait.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.changed:
			wait.Reset(settle)
		case <-wait.C:
			if !c.reconcile(ctx) {
				wait.Reset(retry)
			}
		}
	}
	wg.Wait()
	return nil
}

// Ready says whether the Services and nodes of the cluster are known.
func (c *Controller) Ready(context.Context) error {
	for _, l := range c.loops {
		if !l.HasSynced() {
			return errors.New("services and nodes are not read yet")
		}
	}
	return nil
}

// reconcile writes every status that differs from what it should be, and says whether all of it worked.
func (c *Controller) reconcile(ctx context.Context) bool {
	services := list[*corev1.Service](c.services)
	wanted := assign(world{
		services: services, nodes: list[*corev1.Node](c.nodes), slices: list[*discoveryv1.EndpointSlice](c.slices),
		reserved: c.cfg.ReservedPorts,
	})
	ok := true
	for _, s := range services {
		key := s.Namespace + "/" + s.Name
		a, found := wanted[key]
		if !found {
			continue
		}
		if a.problem != "" && c.told[key] != a.problem {
			c.events.Event(s, corev1.EventTypeWarning, "LoadBalancerFailed", a.problem)
		}
		c.told[key] = a.problem
		if a.keep || slices.Equal(published(s), a.addresses) {
			continue
		}
		if err := c.publish(ctx, s, a.addresses); err != nil {
			c.cfg.Log.Debug("service status will be written again", "service", key, "reason", err)
			ok = false
		}
	}
	for key := range c.told {
		if _, found := wanted[key]; !found {
			delete(c.told, key)
		}
	}
	return ok
}

// publish writes the addresses into the Service's status.
func (c *Controller) publish(ctx context.Context, s *corev1.Service, addresses []string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": s.UID, "resourceVersion": s.ResourceVersion},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": ingress(addresses)}},
	})
	if err != nil {
		return fmt.Errorf("write status patch: %w", err)
	}
	_, err = c.client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the change that made it so wakes the loop again
	}
	if err != nil {
		return fmt.Errorf("write service status: %w", err)
	}
	c.events.Event(s, corev1.EventTypeNormal, "LoadBalancerUpdated", "published at "+describe(addresses))
	return nil
}

func list[T any](store cache.Store) []T {
	var out []T
	for _, o := range store.List() {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
