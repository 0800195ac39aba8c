package controller

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1alpha1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/kube"
)

// watchedKinds are the kinds of grids with the version in which they are stored.
func watchedKinds() map[schema.GroupKind]string {
	return map[schema.GroupKind]string{
		{Group: superedge.Group, Kind: superedge.KindDeploymentGrid}:    superedge.Version,
		{Group: superedge.Group, Kind: superedge.KindStatefulSetGrid}:   superedge.Version,
		{Group: superedge.Group, Kind: superedge.KindServiceGrid}:       superedge.Version,
		{Group: superedge.OldGroup, Kind: superedge.KindDeploymentGrid}: superedge.Version,
		{Group: superedge.OldGroup, Kind: superedge.KindServiceGrid}:    superedge.Version,
		nodeUnits():  site.Version,
		nodeGroups(): site.Version,
		nodePools():  v1beta2.Version,
		{Group: v1beta1.Group, Kind: v1beta1.KindYurtAppSet}:         v1beta1.Version,
		{Group: v1alpha1.Group, Kind: v1alpha1.KindYurtAppDaemon}:    v1alpha1.Version,
		{Group: v1alpha1.Group, Kind: v1alpha1.KindUnitedDeployment}: v1alpha1.Version,
	}
}

func nodeUnits() schema.GroupKind {
	return schema.GroupKind{Group: site.Group, Kind: site.KindNodeUnit}
}
func nodeGroups() schema.GroupKind {
	return schema.GroupKind{Group: site.Group, Kind: site.KindNodeGroup}
}
func nodePools() schema.GroupKind {
	return schema.GroupKind{Group: v1beta2.Group, Kind: v1beta2.KindNodePool}
}

// The kinds of Kubernetes that are watched, once a kind of ours needs them.
func kindNode() schema.GroupKind    { return schema.GroupKind{Kind: "Node"} }
func kindService() schema.GroupKind { return schema.GroupKind{Kind: "Service"} }
func kindWorkload(kind string) schema.GroupKind {
	return schema.GroupKind{Group: appsv1.GroupName, Kind: kind}
}

// resourceOf is the plural of a kind, as all kinds here make it.
func resourceOf(gk schema.GroupKind, version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gk.Group, Version: version, Resource: strings.ToLower(gk.Kind) + "s"}
}

// isSet says whether a kind is one of sets of workloads.
func isSet(gk schema.GroupKind) bool {
	switch gk.Kind {
	case superedge.KindDeploymentGrid, superedge.KindStatefulSetGrid, v1beta1.KindYurtAppSet, v1alpha1.KindYurtAppDaemon, v1alpha1.KindUnitedDeployment:
		return true
	}
	return false
}

// start watches a kind of ours, after what its objects are compared with.
func (e *Engine) start(gk schema.GroupKind, version string) {
	e.startBuiltin(kindNode(), e.client.CoreV1().RESTClient(), &corev1.Node{}, "", e.onNode)
	switch {
	case isSet(gk):
		kinds := []string{placement.Deployment, placement.StatefulSet}
		if gk.Kind == superedge.KindDeploymentGrid {
			kinds = kinds[:1]
		} else if gk.Kind == superedge.KindStatefulSetGrid {
			kinds = kinds[1:]
			e.startBuiltin(kindService(), e.client.CoreV1().RESTClient(), &corev1.Service{}, "", e.onService)
		}
		for _, kind := range kinds {
			example := runtime.Object(&appsv1.Deployment{})
			if kind == placement.StatefulSet {
				example = &appsv1.StatefulSet{}
			}
			e.startBuiltin(kindWorkload(kind), e.client.AppsV1().RESTClient(), example, placement.LabelUnit, e.onWorkload)
		}
	case gk.Kind == superedge.KindServiceGrid:
		e.startBuiltin(kindService(), e.client.CoreV1().RESTClient(), &corev1.Service{}, "", e.onService)
	}
	source := kube.Source(e.kinds.Resource(resourceOf(gk, version)), "")
	e.informer(gk, source, &unstructured.Unstructured{}, func(old, now any) { e.onObject(gk, old, now) })
	if isSet(gk) {
		e.queue.AddAfter(key{task: taskStrays}, reask) // by then the sets are known
	}
}

// startBuiltin watches a kind of Kubernetes once; with a label only objects that have it.
func (e *Engine) startBuiltin(gk schema.GroupKind, client rest.Interface, example runtime.Object, label string, on func(old, now any)) {
	source := cache.NewFilteredListWatchFromClient(client, strings.ToLower(gk.Kind)+"s", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.LabelSelector, o.FieldSelector = label, fields.Everything().String()
	})
	e.informer(gk, source, example, on)
}

// informer starts an informer and waits until it has read everything; one that runs already is left alone. on gets the object
// before and after each change, nil where there is none.
func (e *Engine) informer(gk schema.GroupKind, source cache.ListerWatcher, example runtime.Object, on func(old, now any)) {
	e.mu.Lock()
	informer, runs := e.stores[gk]
	if !runs {
		informer = cache.NewSharedIndexInformer(source, example, 0, cache.Indexers{byOwner: ownerIndex, cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		_ = informer.SetTransform(slim) // fails only when it runs
		e.told[gk], _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(now any) { on(nil, now) },
			UpdateFunc: func(old, now any) { on(old, now) },
			DeleteFunc: func(old any) {
				if gone, ok := old.(cache.DeletedFinalStateUnknown); ok {
					old = gone.Obj
				}
				on(old, nil)
			},
		})
		e.stores[gk] = informer
		e.wait.Go(func() { informer.RunWithContext(e.done) })
	}
	told := e.told[gk]
	e.mu.Unlock()
	cache.WaitForCacheSync(e.done.Done(), informer.HasSynced, told.HasSynced)
}

// store returns what is known of a kind, or nil while nobody needs it.
func (e *Engine) store(gk schema.GroupKind) cache.Indexer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i, ok := e.stores[gk]; ok {
		return i.GetIndexer()
	}
	return nil
}

// objects lists the objects of a kind of ours.
func (e *Engine) objects(gk schema.GroupKind) []*unstructured.Unstructured {
	store := e.store(gk)
	if store == nil {
		return nil
	}
	var out []*unstructured.Unstructured
	for _, o := range store.List() {
		if u, ok := o.(*unstructured.Unstructured); ok {
			out = append(out, u)
		}
	}
	return out
}

// object returns one object of a kind of ours, or nil.
func (e *Engine) object(gk schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	store := e.store(gk)
	if store == nil {
		return nil
	}
	o, _, _ := store.GetByKey(cache.NewObjectName(namespace, name).String())
	u, _ := o.(*unstructured.Unstructured)
	return u
}

// byOwner is the index of objects by the UID of their controller.
const byOwner = "owner"

func ownerIndex(o any) ([]string, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, err
	}
	if c := metav1.GetControllerOf(m); c != nil {
		return []string{string(c.UID)}, nil
	}
	return nil, nil
}

// slim drops what no decision reads before an object is kept in memory.
func slim(o any) (any, error) {
	if _, already := o.(*workload); already {
		return o, nil
	}
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	switch o := o.(type) {
	case *unstructured.Unstructured:
		delete(o.Object, "status")
	case *appsv1.Deployment, *appsv1.StatefulSet:
		return newWorkload(o), nil
	case *corev1.Node:
		o.Spec = corev1.NodeSpec{Taints: o.Spec.Taints, Unschedulable: o.Spec.Unschedulable}
		status := corev1.NodeStatus{}
		for _, c := range o.Status.Conditions {
			if c.Type == corev1.NodeReady {
				status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
			}
		}
		o.Status = status
	}
	return o, nil
}
