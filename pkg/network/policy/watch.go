package policy

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/ipam"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/network/policy/compile"
)

// watch is what the rules depend on: policies always, the rest while there is one.
type watch struct {
	client   kubernetes.Interface
	changed  chan struct{} // something may have
	policies source
	store    *ipam.Store // nil where another plugin gives addresses
	heldDir  string

	log *slog.Logger

	// While there is a policy:
	cancel      context.CancelFunc
	all, spaces source
}

// source is one kind of objects.
type source struct {
	store cache.Store
	loop  cache.Controller
}

func newWatch(cfg Config) (*watch, error) {
	rc, err := kube.Config(cfg.Kubeconfig, "network-policy")
	if err != nil {
		return nil, err
	}
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	w := &watch{client: client, changed: make(chan struct{}, 1), log: cfg.Log}
	if cfg.ReservedDir != "" {
		if w.store, err = ipam.Open(cfg.ReservedDir); err != nil {
			return nil, err
		}
		w.heldDir = filepath.Join(cfg.ReservedDir, "held")
	}
	w.policies = w.source(client.NetworkingV1().RESTClient(), "networkpolicies", &networkingv1.NetworkPolicy{}, fields.Everything(), slimPolicy)
	return w, nil
}

// source prepares a watch of all objects of a resource that the server selects, each cut down by slim.
func (w *watch) source(client rest.Interface, resource string, kind runtime.Object, selector fields.Selector, slim cache.TransformFunc) source {
	var s source
	s.store, s.loop = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, selector),
		ObjectType:    kind,
		Transform:     slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { w.poke() }, UpdateFunc: func(any, any) { w.poke() }, DeleteFunc: func(any) { w.poke() },
		},
	})
	return s
}

// poke says that something may have changed; it never waits.
func (w *watch) poke() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// start watches what policies select, unless it does already; it returns whether it began.
func (w *watch) start(ctx context.Context) bool {
	if w.cancel != nil {
		return false
	}
	ctx, w.cancel = context.WithCancel(ctx)
	core := w.client.CoreV1().RESTClient()
	running := fields.AndSelectors(
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)), fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)))
	w.all = w.source(core, "pods", &corev1.Pod{}, running, slimPod)
	w.spaces = w.source(core, "namespaces", &corev1.Namespace{}, fields.Everything(), slimNamespace)
	for _, s := range []source{w.all, w.spaces} {
		go s.loop.RunWithContext(ctx)
	}
	go w.awaitSynced(ctx, w.all, w.spaces)
	go w.followAddresses(ctx)
	return true
}

// follow begins to watch the policies.
func (w *watch) follow(ctx context.Context) {
	go func() {
		if kube.AwaitAccess(ctx, w.ask) {
			w.policies.loop.RunWithContext(ctx)
		}
	}()
	go w.awaitSynced(ctx, w.policies)
}

// ask is the first question to the API.
func (w *watch) ask(ctx context.Context) error {
	_, err := w.client.NetworkingV1().NetworkPolicies(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1})
	return err
}

// awaitSynced pokes when the first lists are complete: an empty list makes no event.
func (w *watch) awaitSynced(ctx context.Context, sources ...source) {
	for _, s := range sources {
		if !cache.WaitForCacheSync(ctx.Done(), s.loop.HasSynced) {
			return
		}
	}
	w.poke()
}

// stop ends what start began, and returns whether it had.
func (w *watch) stop() bool {
	if w.cancel == nil {
		return false
	}
	w.cancel()
	w.cancel, w.all, w.spaces = nil, source{}, source{}
	return true
}

func (w *watch) synced() bool { return w.all.loop.HasSynced() && w.spaces.loop.HasSynced() }

func (w *watch) list() []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, o := range w.policies.store.List() {
		if p, ok := o.(*networkingv1.NetworkPolicy); ok {
			out = append(out, p)
		}
	}
	return out
}

func (w *watch) namespaces() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, o := range w.spaces.store.List() {
		if n, ok := o.(*metav1.PartialObjectMetadata); ok {
			out[n.Name] = n.Labels
		}
	}
	return out
}

func (w *watch) pods() []compile.Pod {
	var out []compile.Pod
	for _, o := range w.all.store.List() {
		if p, ok := o.(*slimmed); ok && !p.hostNetwork {
			out = append(out, p.pod)
		}
	}
	return out
}
