package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/util/json"

	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/dialect"
	"github.com/kedge-io/kedge/pkg/grid/membership"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

func eventSource() corev1.EventSource { return corev1.EventSource{Component: "kedge-grid"} }

// onObject is a change of an object of ours.
func (e *Engine) onObject(gk schema.GroupKind, old, now any) {
	before, _ := old.(*unstructured.Unstructured)
	after, _ := now.(*unstructured.Unstructured)
	if before != nil && after != nil && sameWish(before, after) {
		return // a change of the status
	}
	obj := after
	if obj == nil {
		obj = before
	}
	k := key{kind: gk, namespace: obj.GetNamespace(), name: obj.GetName()}
	switch {
	case isSet(gk):
		k.task = taskSet
		e.dirty(k, nil)
		if gk.Kind == superedge.KindStatefulSetGrid {
			e.askNames(before, after)
		}
	case gk.Kind == superedge.KindServiceGrid:
		k.task = taskService
		e.queue.Add(k)
	default:
		e.onMember(gk, before, after)
	}
}

// sameWish says whether only the status changed.
func sameWish(a, b *unstructured.Unstructured) bool {
	return a.GetUID() == b.GetUID() && a.GetGeneration() == b.GetGeneration() && equalMaps(a.GetAnnotations(), b.GetAnnotations()) &&
		equalMaps(a.GetLabels(), b.GetLabels()) && a.GetDeletionTimestamp().Equal(b.GetDeletionTimestamp())
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// askNames looks at the Services that a StatefulSetGrid names, or named.
func (e *Engine) askNames(grids ...*unstructured.Unstructured) {
	for _, g := range grids {
		if g == nil {
			continue
		}
		for _, service := range dialect.ServiceNames(g) {
			e.queue.Add(key{task: taskNames, namespace: g.GetNamespace(), name: service})
		}
	}
}

// onNode is a change of a node: only the units that it left, joined or changed are looked at.
func (e *Engine) onNode(old, now any) {
	before, _ := old.(*corev1.Node)
	after, _ := now.(*corev1.Node)
	touched := e.nodes.Change(before, after)
	for label, units := range touched {
		if before != nil && after != nil && before.Labels[label] != "" && before.Labels[label] != after.Labels[label] {
			e.queue.AddAfter(key{task: taskStrays, name: after.Name}, settle)
		}
		for _, k := range e.setsOf(label) {
			e.forgetMissing(k)
			e.dirty(k, units)
		}
	}
	e.onMemberNode(before, after)
}

// page is how many pods are read at once when all are looked at.
const page = 500

// syncStrays removes pods of a unit from a node that left the unit, so that they are made again where the unit is: Kubernetes looks at
// node labels only when it places a pod. Without a node it looks at all nodes once, for those that changed while nobody watched.
func (e *Engine) syncStrays(ctx context.Context, node string) error {
	if node != "" {
		_, err := e.strays(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		return err
	}
	for _, label := range membership.UnitLabels() {
		o := metav1.ListOptions{LabelSelector: label, Limit: page}
		for more := true; more; more = o.Continue != "" {
			var err error
			if o.Continue, err = e.strays(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// strays removes the strays among some pods, and returns where the next ones begin.
func (e *Engine) strays(ctx context.Context, some metav1.ListOptions) (string, error) {
	pods, err := e.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, some)
	if err != nil {
		return "", fmt.Errorf("list pods: %w", err)
	}
	keys := e.keys()
	for i := range pods.Items {
		p := &pods.Items[i]
		o, known, _ := e.store(kindNode()).GetByKey(p.Spec.NodeName)
		node, ok := o.(*corev1.Node)
		if !known || !ok || p.DeletionTimestamp != nil || !membership.Stray(p, node.Labels, keys) {
			continue
		}
		uid := p.UID
		err := e.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return "", fmt.Errorf("remove pod %s from %s: %w", p.Name, p.Spec.NodeName, err)
		}
		e.events.Eventf(p, corev1.EventTypeNormal, "LeftUnit", "removed: node %s is not in the unit any more", p.Spec.NodeName)
	}
	return pods.Continue, nil
}

// keys are the node labels whose values are the units of sets.
func (e *Engine) keys() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := map[string]bool{}
	var out []string
	for _, s := range e.sets {
		if s.key != "" && !seen[s.key] {
			seen[s.key] = true
			out = append(out, s.key)
		}
	}
	return out
}

// onWorkload is a change of a workload that some set made.
func (e *Engine) onWorkload(old, now any) {
	o := now
	if o == nil {
		o = old
	}
	w, ok := o.(*workload)
	if !ok {
		return
	}
	if now == nil {
		e.mu.Lock()
		delete(e.checked, w.UID)
		e.mu.Unlock()
	}
	owner := metav1.GetControllerOf(w)
	if owner == nil {
		return
	}
	group, _, _ := cutLast(owner.APIVersion, '/')
	k := key{task: taskSet, kind: schema.GroupKind{Group: group, Kind: owner.Kind}, namespace: w.Namespace, name: owner.Name}
	e.dirty(k, []string{w.live.Unit})
}

// onService is a change of any Service: one that a grid made, or one that a StatefulSetGrid names.
func (e *Engine) onService(old, now any) {
	o := now
	if o == nil {
		o = old
	}
	s, ok := o.(*corev1.Service)
	if !ok {
		return
	}
	if owner := metav1.GetControllerOf(s); owner != nil && owner.Kind == superedge.KindServiceGrid {
		group, _, _ := cutLast(owner.APIVersion, '/')
		e.queue.Add(key{task: taskService, kind: schema.GroupKind{Group: group, Kind: owner.Kind}, namespace: s.Namespace, name: owner.Name})
	}
	if now != nil {
		e.queue.Add(key{task: taskNames, namespace: s.Namespace, name: s.Name})
	}
}

// dirty asks for a look at some units of a set, or at all of them.
func (e *Engine) dirty(k key, units []string) {
	e.mu.Lock()
	s := e.sets[k]
	if s == nil {
		s = &setState{units: map[string]bool{}, all: true, refused: map[string]string{}}
		e.sets[k] = s
	}
	if units == nil {
		s.all = true
	}
	for _, u := range units {
		s.units[u] = true
	}
	e.mu.Unlock()
	e.queue.AddAfter(k, settle)
}

// forgetMissing reads a set again that lists pools which were not there: a node may have brought one.
func (e *Engine) forgetMissing(k key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sets[k]; s != nil && len(s.missing) > 0 {
		s.set = nil
	}
}

// setsOf lists the sets whose units are the values of a node label.
func (e *Engine) setsOf(label string) []key {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []key
	for k, s := range e.sets {
		if s.key == label {
			out = append(out, k)
		}
	}
	return out
}

// allSets asks for a look at all sets that are made of pools.
func (e *Engine) allSets(group string) {
	e.mu.Lock()
	var keys []key
	for k, s := range e.sets {
		if k.kind.Group == group {
			s.set = nil
			keys = append(keys, k)
		}
	}
	e.mu.Unlock()
	for _, k := range keys {
		e.dirty(k, nil)
	}
}

// cutLast is strings.Cut at the last separator; without one all of it is before.
func cutLast(s string, sep byte) (before, after string, found bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// workload is what is kept of a Deployment or StatefulSet: thousands of them are held in memory.
type workload struct {
	metav1.ObjectMeta
	live   placement.Live
	status any // as Kubernetes has it
}

// newWorkload keeps what decisions and statuses read.
func newWorkload(o any) *workload {
	m := o.(metav1.Object)
	out := &workload{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(), Generation: m.GetGeneration(),
		},
		live: placement.Live{Name: m.GetName(), Unit: m.GetLabels()[placement.LabelUnit], Hash: m.GetAnnotations()[placement.AnnotationHash]},
	}
	if c := metav1.GetControllerOf(m); c != nil {
		out.OwnerReferences = []metav1.OwnerReference{*c}
	}
	l := &out.live
	switch w := o.(type) {
	case *appsv1.Deployment:
		out.status = w.Status
		want, s := replicas(w.Spec.Replicas), w.Status
		l.Replicas, l.Ready, l.Updated, l.Available = int64(s.Replicas), int64(s.ReadyReplicas), int64(s.UpdatedReplicas), int64(s.AvailableReplicas)
		l.Complete = s.ObservedGeneration >= w.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
	case *appsv1.StatefulSet:
		out.status = w.Status
		want, s := replicas(w.Spec.Replicas), w.Status
		l.Replicas, l.Ready, l.Updated, l.Available = int64(s.Replicas), int64(s.ReadyReplicas), int64(s.UpdatedReplicas), int64(s.AvailableReplicas)
		updated := s.UpdatedReplicas
		if u := w.Spec.UpdateStrategy; u.Type == appsv1.OnDeleteStatefulSetStrategyType || u.RollingUpdate != nil && replicas(u.RollingUpdate.Partition) > 1 {
			updated = want // how far it goes is the user's business
		}
		l.Complete = s.ObservedGeneration >= w.Generation && updated == want && s.AvailableReplicas == want
	}
	return out
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// content is a typed status as JSON content.
func content(status any) map[string]any {
	data, err := json.Marshal(status)
	if err != nil {
		return nil
	}
	var out map[string]any
	_ = kjson.Unmarshal(data, &out) // whole numbers are as those that the API answers with
	return out
}

// pace is how long a status of so many units waits for more changes.
func pace(units int) time.Duration {
	return 200*time.Millisecond + time.Duration(units)*2*time.Millisecond
}

// rhythm spaces the writes of one status. A large one, which is one object for all units, is written ever more seldom while changes go on, and
// soon after a single change.
type rhythm struct {
	last  time.Time // when it was written, or about to be
	burst int       // how many times shortly one after the other
}

// longest is how many times in a row the pause doubles.
const longest = 4

// next is when the status of so many units is to be written after a change now.
func (r *rhythm) next(now time.Time, units int) time.Duration {
	wait := pace(units)
	if units > detailed {
		wait = max(wait, r.last.Add(pace(units)<<r.burst).Sub(now))
	}
	return wait
}

// wrote notes a write.
func (r *rhythm) wrote(now time.Time, units int) {
	if now.Sub(r.last) < 2*pace(units)<<r.burst {
		r.burst = min(r.burst+1, longest)
	} else {
		r.burst = 0
	}
	r.last = now
}
