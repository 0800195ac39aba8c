// Package view knows, on one node, which Services keep their traffic inside a unit and where nodes are, and shows consumers the
// endpoints of their own unit. Only pkg/grid imports it, and offers it to the agent.
package view

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/traffic"
	"github.com/kedge-io/kedge/pkg/kube"
)

// Config says where the node reads and whom it tells.
type Config struct {
	// Kubeconfig reads Services and nodes, through the node's own view of the API, so that it works while the server is away.
	Kubeconfig string
	NodeName   string
	// Changed is told that endpoints would be seen differently now. It must not wait.
	Changed func()
}

// View is the component "grid-traffic".
type View struct {
	cfg      Config
	services cache.SharedIndexInformer
	nodes    cache.SharedIndexInformer
	ask      func(context.Context) error // the first question to the API
	needed   chan struct{}               // closed when the first Service keeps its traffic inside a unit
	once     sync.Once
}

// New prepares a view; it does not connect. The kubeconfig is read by Run.
func New(cfg Config) (*View, error) {
	if cfg.NodeName == "" || cfg.Kubeconfig == "" || cfg.Changed == nil {
		return nil, errors.New("grid traffic: a node name, a kubeconfig and somebody to tell are needed")
	}
	return &View{cfg: cfg, needed: make(chan struct{})}, nil
}

// Name implements supervisor.Component.
func (*View) Name() string { return "grid-traffic" }

// Ready implements supervisor.Component. What the view does not know yet it hides.
func (*View) Ready(context.Context) error { return nil }

// Prepare makes the stores; it must be called once, before Run and Change.
func (v *View) Prepare() error {
	cfg, err := kube.Config(v.cfg.Kubeconfig, "grid-traffic")
	if err != nil {
		return err
	}
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make grid traffic client: %w", err)
	}
	v.ask = func(ctx context.Context) error {
		_, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{}) // which a node knows while it is cut off
		return err
	}
	follow := func(resource string, example runtime.Object, slim cache.TransformFunc, differs func(old, now metav1.Object) bool) cache.SharedIndexInformer {
		source := cache.NewFilteredListWatchFromClient(client.CoreV1().RESTClient(), resource, metav1.NamespaceAll, func(*metav1.ListOptions) {})
		informer := cache.NewSharedIndexInformer(source, example, 0, cache.Indexers{})
		_ = informer.SetTransform(slim) // fails only when it runs
		_, _ = informer.AddEventHandler(v.handler(differs))
		return informer
	}
	v.services = follow("services", &corev1.Service{}, slimService, func(old, now metav1.Object) bool {
		return !maps.Equal(old.GetAnnotations(), now.GetAnnotations())
	})
	v.nodes = follow("nodes", &corev1.Node{}, slimNode, func(old, now metav1.Object) bool { return !maps.Equal(old.GetLabels(), now.GetLabels()) })
	return nil
}

// handler tells of changes that matter.
func (v *View) handler(differs func(old, now metav1.Object) bool) cache.ResourceEventHandler {
	look := func(old, now any) {
		before, after := accessor(old), accessor(now)
		for _, o := range []metav1.Object{before, after} {
			if s, ok := o.(*corev1.Service); ok && closed(s.Annotations) {
				v.once.Do(func() { close(v.needed) })
			}
		}
		if differs(before, after) {
			v.cfg.Changed()
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(now any) { look(nil, now) },
		UpdateFunc: look,
		DeleteFunc: func(old any) { look(old, nil) },
	}
}

func accessor(o any) metav1.Object {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	if m, err := meta.Accessor(o); err == nil {
		return m
	}
	return &metav1.ObjectMeta{}
}

// closed says whether a Service's annotations concern the grid.
func closed(annotations map[string]string) bool {
	return len(traffic.Keys(annotations)) > 0 || annotations[traffic.AnnotationNames] != ""
}

// slimService keeps a Service's name and the annotations that concern the grid.
func slimService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	kept := map[string]string{}
	for _, k := range []string{superedge.AnnotationTopology, v1beta2.AnnotationTopology, traffic.AnnotationNames} {
		if v, has := s.Annotations[k]; has {
			kept[k] = v
		}
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, ResourceVersion: s.ResourceVersion, Annotations: kept}}, nil
}

// slimNode keeps a node's name and labels.
func slimNode(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion, Labels: n.Labels}}, nil
}

// Run implements supervisor.Component: it follows Services, and nodes as soon as a Service needs them.
func (v *View) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	follow := func(informer cache.SharedIndexInformer) {
		wait.Go(func() { informer.RunWithContext(ctx) })
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			v.cfg.Changed()
		}
	}
	wait.Go(func() {
		if kube.AwaitAccess(ctx, v.ask) {
			follow(v.services)
		}
	})
	select {
	case <-ctx.Done():
	case <-v.needed:
		follow(v.nodes)
	}
	wait.Wait()
	return nil
}

// Change returns an EndpointSlice as consumers on this node see it, and everything else as it is.
func (v *View) Change(o runtime.Object) runtime.Object {
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return o
	}
	annotations := v.annotations(slice)
	if !closed(annotations) {
		return o
	}
	labels, _ := v.labels(v.cfg.NodeName)
	return traffic.Close(slice, annotations, traffic.Node{Name: v.cfg.NodeName, Labels: labels, LabelsOf: v.labels})
}

// annotations are those of a slice's Service. Before Services are known, a slice of a ServiceGrid, which carries a label of it, shows
// the endpoints of this node only: it must not leak.
func (v *View) annotations(slice *discoveryv1.EndpointSlice) map[string]string {
	key := slice.Namespace + "/" + traffic.ServiceOf(slice)
	if o, exists, _ := v.services.GetIndexer().GetByKey(key); exists {
		if s, ok := o.(*corev1.Service); ok {
			return s.Annotations
		}
	}
	if label, ours := slice.Labels[superedge.LabelKey]; ours && !v.services.HasSynced() {
		return map[string]string{superedge.AnnotationTopology: `["` + strings.ReplaceAll(label, `"`, "") + `"]`}
	}
	return nil
}

func (v *View) labels(node string) (map[string]string, bool) {
	o, exists, _ := v.nodes.GetIndexer().GetByKey(node)
	n, ok := o.(*corev1.Node)
	if !exists || !ok {
		return nil, false
	}
	return n.Labels, true
}
