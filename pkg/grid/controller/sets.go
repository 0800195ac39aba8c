package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	"github.com/kedge-io/kedge/pkg/grid/dialect"
	"github.com/kedge-io/kedge/pkg/grid/object"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/grid/report"
)

// setState is what the engine remembers of a set between looks at it.
type setState struct {
	units map[string]bool // to look at
	all   bool            // look at all
	key   string          // node label

	set     *placement.Set // as read from the object of this version
	version string
	missing []string // pools that are listed and not there

	refused map[string]string // unit -> why the API refused its workload
	plan    placement.Plan    // the last one, for the status
	status  map[string]any    // as last written
	states  map[string]state  // of units, in it
	rhythm  rhythm            // in which it is written
	warned  string            // the last warning
}

// syncSet brings the workloads of a set in line.
func (e *Engine) syncSet(ctx context.Context, k key) error {
	obj := e.object(k.kind, k.namespace, k.name)
	if obj == nil || obj.GetDeletionTimestamp() != nil { // the garbage collector removes what it owns
		e.mu.Lock()
		delete(e.sets, k)
		e.mu.Unlock()
		return nil
	}
	state, some := e.take(k)
	set, err := e.read(k, state, obj)
	if err != nil {
		e.warn(obj, state, "Invalid", err.Error())
		return nil // until somebody changes it
	}
	if unused := dialect.UnusedTemplates(obj); len(unused) > 0 {
		return e.dropTemplates(ctx, k, obj, unused)
	}
	var units map[string]placement.Unit
	var count int
	if some == nil || set.Rollout.Gated() {
		units = e.nodes.Units(set.Key)
		count = len(units)
	} else {
		units, count = e.nodes.Some(set.Key, some)
	}
	live := e.live(set, obj.GetUID(), some, units)
	plan := placement.Decide(set, units, live, some)
	failed, failure := e.carryOut(ctx, set, obj, state, plan)
	e.remember(k, state, plan, some)
	e.tell(obj, state, set, plan, failed)
	e.mu.Lock()
	wait := state.rhythm.next(time.Now(), count)
	e.mu.Unlock()
	e.queue.AddAfter(key{task: taskStatus, kind: k.kind, namespace: k.namespace, name: k.name}, wait)
	e.again(k, state)
	if len(failed) > 0 {
		e.dirty(k, slices.Collect(maps.Keys(failed)))
		return fmt.Errorf("write workloads of %d units: %w", len(failed), failure)
	}
	return nil
}

// take returns the state of a set and the units to look at, nil for all, and marks them as looked at.
func (e *Engine) take(k key) (*setState, []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sets[k]
	if s == nil {
		s = &setState{units: map[string]bool{}, all: true, refused: map[string]string{}}
		e.sets[k] = s
	}
	some := slices.Sorted(maps.Keys(s.units))
	if s.all {
		some = nil
	} else if some == nil {
		some = []string{}
	}
	s.units, s.all = map[string]bool{}, false
	return s, some
}

// read returns the set of an object, and reads it only when it changed.
func (e *Engine) read(k key, s *setState, obj *unstructured.Unstructured) (*placement.Set, error) {
	version := fmt.Sprint(obj.GetUID(), obj.GetGeneration(), obj.GetAnnotations()[placement.AnnotationMaxUnavailable], obj.GetAnnotations()[placement.AnnotationPaused])
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.set != nil && s.version == version {
		return s.set, nil
	}
	var set *placement.Set
	var err error
	if k.kind.Group == v1beta1.Group {
		e.mu.Unlock()
		pools := e.pools()
		set, s.missing, err = dialect.AppSet(obj, pools, func(name string) bool { return e.nodes.Has(v1beta2.LabelPool, name) })
		e.mu.Lock()
		if err == nil {
			set.Labels = map[string]string{}
		}
	} else {
		set, err = dialect.Grid(obj)
	}
	if err != nil {
		return nil, err
	}
	s.set, s.version, s.key, s.refused = set, version, set.Key, map[string]string{}
	return set, nil
}

// pools are the NodePools that are there.
func (e *Engine) pools() map[string]dialect.Pool {
	out := map[string]dialect.Pool{}
	for _, o := range e.objects(nodePools()) {
		if o.GetDeletionTimestamp() == nil {
			spec := poolSpec(o)
			out[o.GetName()] = dialect.Pool{Name: o.GetName(), Labels: o.GetLabels(), Taints: spec.Taints}
		}
	}
	return out
}

// live is what exists of a set by name: what is looked at, and everything when all of it is.
func (e *Engine) live(set *placement.Set, owner types.UID, some []string, units map[string]placement.Unit) map[string]placement.Live {
	out := map[string]placement.Live{}
	store := e.store(kindWorkload(set.Kind))
	if store == nil {
		return out
	}
	if some == nil || set.Rollout.Gated() {
		owned, _ := store.ByIndex(byOwner, string(owner))
		for _, o := range owned {
			l := e.liveOf(o, owner)
			out[l.Name] = l
		}
		some = set.Wants(units)
	}
	for _, unit := range some {
		name := set.WorkloadName(unit)
		if o, exists, _ := store.GetByKey(cache.NewObjectName(set.Namespace, name).String()); exists {
			out[name] = e.liveOf(o, owner)
		}
	}
	return out
}

// liveOf says a workload in the terms of placement.
func (e *Engine) liveOf(o any, owner types.UID) placement.Live {
	w := o.(*workload)
	l := w.live
	if c := metav1.GetControllerOf(w); c == nil || c.UID != owner {
		l.Foreign = "nobody"
		if c != nil {
			l.Foreign = c.Kind + " " + c.Name
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	right, known := e.checked[w.UID]
	if !known {
		e.checked[w.UID] = w.Generation // of the time before this process: what was right then
	}
	l.Edited = known && right < w.Generation
	return l
}

// carryOut does what a plan says, many requests at once. It returns the units that failed in a way that may pass, with one of the errors.
func (e *Engine) carryOut(ctx context.Context, set *placement.Set, obj *unstructured.Unstructured, s *setState, p placement.Plan) (map[string]bool, error) {
	var wg sync.WaitGroup
	failed := map[string]bool{}
	var last error
	run := func(unit string, do func() error) {
		e.write <- struct{}{}
		wg.Go(func() {
			defer func() { <-e.write }()
			err := do()
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(s.refused, unit)
			if err == nil {
				return
			}
			s.refused[unit] = err.Error()
			if !object.Final(err) {
				failed[unit], last = true, err
			}
		})
	}
	for _, name := range p.Delete {
		run(unitIn(set, name), func() error { return e.remove(ctx, set, obj.GetUID(), name) })
	}
	for _, unit := range slices.Concat(p.Create, p.Update, p.Verify) {
		create := slices.Contains(p.Create, unit)
		run(unit, func() error { return e.put(ctx, set, obj.GetUID(), unit, create) })
	}
	wg.Wait()
	return failed, last
}

// remember keeps a plan for the status; a look at some units changes what is known of these only.
func (e *Engine) remember(k key, s *setState, p placement.Plan, some []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if some == nil || s.plan.Held == nil || s.set.Rollout.Gated() {
		s.plan = p
		return
	}
	for _, unit := range some {
		delete(s.plan.Problems, unit)
		delete(s.plan.Held, unit)
	}
	maps.Copy(s.plan.Problems, p.Problems)
	maps.Copy(s.plan.Held, p.Held)
}

// unitIn is the unit in the name of a workload of a set.
func unitIn(set *placement.Set, name string) string { return strings.TrimPrefix(name, set.Name+"-") }

// tell makes Events of what was done.
func (e *Engine) tell(obj *unstructured.Unstructured, s *setState, set *placement.Set, p placement.Plan, failed map[string]bool) {
	e.mu.Lock()
	refused := maps.Clone(s.refused)
	e.mu.Unlock()
	gone := make([]string, len(p.Delete))
	for i, name := range p.Delete {
		gone[i] = unitIn(set, name)
	}
	for reason, units := range map[string][]string{"Created": p.Create, "Updated": p.Update, "Deleted": gone} {
		var done []string
		for _, u := range units {
			if !failed[u] && refused[u] == "" {
				done = append(done, u)
			}
		}
		if len(done) > 0 {
			e.events.Event(obj, corev1.EventTypeNormal, reason, fmt.Sprintf("%s workloads of %s: %s", strings.ToLower(reason), report.Units(len(done)), report.Few(done)))
		}
	}
	problems := maps.Clone(p.Problems)
	maps.Copy(problems, refused)
	if len(problems) > 0 {
		unit := slices.Min(slices.Collect(maps.Keys(problems)))
		e.warn(obj, s, "UnitFailed", fmt.Sprintf("unit %s: %s", unit, problems[unit]))
	}
}

// warn makes an Event of a problem, once.
func (e *Engine) warn(obj *unstructured.Unstructured, s *setState, reason, message string) {
	if s.warned != reason+message {
		s.warned = reason + message
		e.events.Event(obj, corev1.EventTypeWarning, reason, message)
	}
}

// dropTemplates removes templates from the pool of a grid that wants to be rid of unused ones.
func (e *Engine) dropTemplates(ctx context.Context, k key, obj *unstructured.Unstructured, names []string) error {
	gone := map[string]any{}
	for _, n := range names {
		gone[n] = nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": obj.GetResourceVersion()}, "spec": map[string]any{"templatePool": gone},
	})
	if err != nil {
		return err
	}
	resource := e.kinds.Resource(resourceOf(k.kind, watchedKinds()[k.kind])).Namespace(k.namespace)
	_, err = resource.Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: object.Manager})
	if err == nil {
		e.events.Event(obj, corev1.EventTypeNormal, "TemplatesDeleted", "deleted unused templates: "+report.Few(names))
	}
	e.dirty(k, nil)
	return err
}

// retryRefused is how long a workload that the API refused, or that belongs to somebody else, is left alone.
const retryRefused = time.Minute

// again looks once more, later, at units whose workload was refused or is somebody else's.
func (e *Engine) again(k key, s *setState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, units := range []map[string]string{s.refused, s.plan.Problems} {
		for unit := range units {
			s.units[unit] = true
		}
	}
	if len(s.refused)+len(s.plan.Problems) > 0 {
		e.queue.AddAfter(k, retryRefused)
	}
}

func (e *Engine) workloads(set *placement.Set) dynamic.ResourceInterface {
	return e.kinds.Resource(resourceOf(kindWorkload(set.Kind), "v1")).Namespace(set.Namespace)
}

// put makes the workload of a unit, or changes it. Replicas that the template leaves out stay as they are: they are the user's, or
// an autoscaler's.
func (e *Engine) put(ctx context.Context, set *placement.Set, owner types.UID, unit string, create bool) error {
	rendered, err := set.Render(unit)
	if err != nil {
		return err
	}
	wanted := &unstructured.Unstructured{Object: rendered}
	labels := wanted.GetLabels()
	labels[placement.LabelUnit] = unit // by which workloads of all dialects are watched
	wanted.SetLabels(labels)
	written, err := object.Ensure(ctx, e.workloads(set), wanted, owner, create)
	if err != nil {
		return fmt.Errorf("%s %s: %w", set.Kind, wanted.GetName(), err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.checked[written.GetUID()] = written.GetGeneration()
	return nil
}

// remove deletes a workload that belongs to owner; one that is gone, or another of its name, is none of ours.
func (e *Engine) remove(ctx context.Context, set *placement.Set, owner types.UID, name string) error {
	o, _, _ := e.store(kindWorkload(set.Kind)).GetByKey(cache.NewObjectName(set.Namespace, name).String())
	live, exists := o.(*workload)
	if !exists {
		return nil
	}
	if c := metav1.GetControllerOf(live); c == nil || c.UID != owner {
		return nil
	}
	uid, background := live.UID, metav1.DeletePropagationBackground
	err := e.workloads(set).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove %s %s: %w", set.Kind, name, err)
	}
	return nil
}
