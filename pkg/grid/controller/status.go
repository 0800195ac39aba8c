package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/grid/object"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/grid/report"
)

// detailed is up to how many units the status holds the conditions of every workload; of more, only of those that are not complete.
const detailed = 100

// syncStatus writes the status of a set, as far as it changed.
func (e *Engine) syncStatus(ctx context.Context, k key) error {
	obj := e.object(k.kind, k.namespace, k.name)
	e.mu.Lock()
	s := e.sets[key{task: taskSet, kind: k.kind, namespace: k.namespace, name: k.name}]
	if s == nil || s.set == nil || obj == nil {
		e.mu.Unlock()
		return nil
	}
	set, plan, old, missing := s.set, s.plan, s.status, s.missing
	problems, held := maps.Clone(s.refused), maps.Clone(plan.Held)
	maps.Copy(problems, plan.Problems)
	e.mu.Unlock()

	units := e.nodes.Units(set.Key)
	live := e.live(set, obj.GetUID(), nil, units)
	sum := placement.Sum(set, units, live)
	told := report.Report{Object: obj, Sum: sum, Problems: problems, Held: held, Missing: missing}
	var now map[string]any
	if k.kind.Group == v1beta1.Group {
		now = told.AppSet()
	} else {
		now = told.Grid()
		now["states"] = e.states(set, units, live, problems, held)
	}
	written, err := e.writeStatus(ctx, k, old, now)
	if err != nil {
		return err
	}
	e.mu.Lock()
	s.status = written
	e.mu.Unlock()
	return nil
}

// writeStatus sends the difference between two statuses; without an old one it asks what is there. It returns what is there then.
func (e *Engine) writeStatus(ctx context.Context, k key, old, now map[string]any) (map[string]any, error) {
	resource := e.kinds.Resource(resourceOf(k.kind, watchedKinds()[k.kind])).Namespace(k.namespace)
	if old == nil {
		live, err := resource.Get(ctx, k.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read status: %w", err)
		}
		if old, _ = live.Object["status"].(map[string]any); old == nil {
			old = map[string]any{}
		}
	}
	object.KeepTimes(old, now)
	diff := object.MergeDiff(old, now)
	if len(diff) == 0 {
		return now, nil
	}
	patch, err := json.Marshal(map[string]any{"status": diff})
	if err != nil {
		return nil, err
	}
	_, err = resource.Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: object.Manager}, "status")
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("write status: %w", err)
	}
	return now, nil
}

// states is the status of each unit's workload as Kubernetes has it, and why a unit waits or cannot have one.
func (e *Engine) states(set *placement.Set, units map[string]placement.Unit, live map[string]placement.Live, problems, held map[string]string) map[string]any {
	out := map[string]any{}
	store := e.store(kindWorkload(set.Kind))
	wanted := set.Wants(units)
	for _, unit := range wanted {
		state := map[string]any{}
		name := set.WorkloadName(unit)
		l, exists := live[name]
		if o, _, _ := store.GetByKey(cache.NewObjectName(set.Namespace, name).String()); exists && l.Foreign == "" && o != nil {
			switch w := o.(type) {
			case *appsv1.Deployment:
				state = content(w.Status)
			case *appsv1.StatefulSet:
				state = content(w.Status)
			}
			if len(wanted) > detailed && l.Complete {
				delete(state, "conditions")
			}
		}
		for _, why := range []string{problems[unit], held[unit]} {
			if why != "" {
				state["message"] = why
				break
			}
		}
		out[unit] = state
	}
	return out
}
