package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

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
	set, plan, old, missing, states := s.set, s.plan, s.status, s.missing, s.states
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
		states = e.states(states, set, units, live, problems, held)
		now["states"] = contents(states)
	}
	written, err := e.writeStatus(ctx, k, old, now)
	if err != nil {
		return err
	}
	e.mu.Lock()
	s.rhythm.wrote(time.Now(), len(units))
	s.status, s.states = written, states
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

// state is what the status of a set says of a unit, and what that was made of.
type state struct {
	version, message string
	brief            bool
	content          map[string]any
}

// states is the status of each unit's workload as Kubernetes has it, and why a unit waits or cannot have one. Those of before whose
// workload is still the same are taken over.
func (e *Engine) states(before map[string]state, set *placement.Set, units map[string]placement.Unit, live map[string]placement.Live, problems, held map[string]string) map[string]state {
	store := e.store(kindWorkload(set.Kind))
	wanted := set.Wants(units)
	out := make(map[string]state, len(wanted))
	for _, unit := range wanted {
		name := set.WorkloadName(unit)
		l, exists := live[name]
		s := state{message: problems[unit], brief: len(wanted) > detailed && l.Complete}
		if s.message == "" {
			s.message = held[unit]
		}
		var of *workload
		if exists && l.Foreign == "" {
			o, _, _ := store.GetByKey(cache.NewObjectName(set.Namespace, name).String())
			if of, _ = o.(*workload); of != nil {
				s.version = string(of.UID) + of.ResourceVersion
			}
		}
		if b := before[unit]; b.content != nil && b.version == s.version && b.message == s.message && b.brief == s.brief {
			out[unit] = b
			continue
		}
		s.content = map[string]any{}
		if of != nil {
			s.content = content(of.status)
		}
		if s.brief {
			delete(s.content, "conditions")
		}
		if s.message != "" {
			s.content["message"] = s.message
		}
		out[unit] = s
	}
	return out
}

// contents is what goes into the status.
func contents(states map[string]state) map[string]any {
	out := make(map[string]any, len(states))
	for unit, s := range states {
		out[unit] = s.content
	}
	return out
}
