package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// DirectoryConfig is what the directory needs to know.
type DirectoryConfig struct {
	Client *rest.Config
	// Seen returns the address from which a node's connection comes, if it has one to this server.
	Seen func(node string) (netip.Addr, bool)
	Log  *slog.Logger
}

// Directory keeps the entries of the nodes as a component of the server.
type Directory struct {
	cfg    DirectoryConfig
	client kubernetes.Interface
}

// NewDirectory prepares the component.
func NewDirectory(cfg DirectoryConfig) (*Directory, error) {
	if cfg.Client == nil || cfg.Seen == nil || cfg.Log == nil {
		return nil, errors.New("directory of pod networks: client, seen and log are required")
	}
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Directory{cfg: cfg, client: client}, nil
}

// Name implements supervisor.Component.
func (*Directory) Name() string { return "pod-networks" }

// Ready implements supervisor.Component.
func (*Directory) Ready(context.Context) error { return nil }

const (
	settle  = 300 * time.Millisecond // changes that come together are written together
	recheck = 30 * time.Second       // a node's connection says nothing when it comes
	retry   = 2 * time.Second
)

// Run implements supervisor.Component.
func (d *Directory) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	api := d.client.CoreV1().RESTClient()
	nodes, entries := Watch(api, "nodes", metav1.NamespaceAll, &corev1.Node{}, changed), Watch(api, "configmaps", Namespace, &corev1.ConfigMap{}, changed)
	go nodes.RunWithContext(ctx)
	go entries.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), nodes.HasSynced, entries.HasSynced) {
		return nil
	}
	for {
		wait := recheck
		if err := d.reconcile(ctx, nodes.GetStore(), entries.GetStore()); err != nil && ctx.Err() == nil {
			d.cfg.Log.Debug("write pod networks", "error", err)
			wait = retry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(wait):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// Watch prepares a store that is kept current, without what no decision reads, and without a word when the API is away; changes
// put a token into changed.
func Watch(api rest.Interface, resource, namespace string, example runtime.Object, changed chan<- struct{}) cache.SharedInformer {
	return watch(cache.NewListWatchFromClient(api, resource, namespace, fields.Everything()), example, changed)
}

// WatchLabeled is Watch for the objects that have a label.
func WatchLabeled(api rest.Interface, resource, label string, example runtime.Object, changed chan<- struct{}) cache.SharedInformer {
	return watch(cache.NewFilteredListWatchFromClient(api, resource, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.LabelSelector = label }), example, changed)
}

func watch(lw cache.ListerWatcher, example runtime.Object, changed chan<- struct{}) cache.SharedInformer {
	wake := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	informer := cache.NewSharedInformer(lw, example, 0)
	// Errors of these can only be that the informer runs already, or is stopped.
	_ = informer.SetTransform(slim)
	_ = informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake})
	return informer
}

func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	if n, ok := o.(*corev1.Node); ok {
		n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses}
	}
	return o, nil
}

// reconcile writes the entries that differ from what the nodes announce.
func (d *Directory) reconcile(ctx context.Context, nodes, entries cache.Store) error {
	var want []Peer
	for _, o := range nodes.List() {
		node, ok := o.(*corev1.Node)
		if !ok {
			continue
		}
		p, err := fromNode(node)
		if errors.Is(err, ErrNotAnnounced) {
			continue
		}
		if err != nil {
			d.cfg.Log.Debug("pod network is not passed on", "error", err)
			continue
		}
		if from, ok := d.cfg.Seen(node.Name); ok && !slices.Contains(addresses(node), from) && from != p.PublicIP && from != p.PublicIPv6 {
			p.Seen = from
		}
		want = append(want, p)
	}
	have := map[string]Peer{}
	for _, o := range entries.List() {
		m, ok := o.(*corev1.ConfigMap)
		if !ok || m.Data[dataKey] == "" {
			continue
		}
		have[m.Name], _ = FromConfigMap(m)
	}
	put, remove := plan(want, have)
	var errs error
	for _, p := range put {
		errs = errors.Join(errs, d.put(ctx, p))
	}
	for _, name := range remove {
		err := d.client.CoreV1().ConfigMaps(Namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// plan decides which entries to write and which to remove.
func plan(want []Peer, have map[string]Peer) (put []Peer, remove []string) {
	wanted := map[string]bool{}
	for _, p := range want {
		wanted[p.Node] = true
		if old, ok := have[p.Node]; !ok || !old.Equal(p) {
			put = append(put, p)
		}
	}
	for name := range have {
		if !wanted[name] {
			remove = append(remove, name)
		}
	}
	slices.Sort(remove)
	return put, remove
}

func (d *Directory) put(ctx context.Context, p Peer) error {
	entry, err := p.ConfigMap()
	if err != nil {
		return err
	}
	api := d.client.CoreV1().ConfigMaps(Namespace)
	_, err = api.Update(ctx, entry, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, entry, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write entry of node %s: %w", p.Node, err)
	}
	return nil
}

// addresses are what a node says its own addresses are.
func addresses(node *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out
}
