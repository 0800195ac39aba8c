package convert

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1alpha1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
)

// tolerationsPath is where a pool's tolerations go in the workload.
const tolerationsPath = "/spec/template/spec/tolerations"

// YurtAppSet converts between v1alpha1 and v1beta1 of apps.openyurt.io. Patches and tolerations of a pool become steps of a JSON patch.
func YurtAppSet(content map[string]any, from, to string) error {
	if s, ok := content["status"].(map[string]any); ok && from != to {
		delete(s, "conditions") // each version has its own; the controller writes them again
	}
	switch {
	case from == "v1alpha1" && to == "v1beta1":
		return remembering(content, from, to, SetUp, setDown)
	case from == "v1beta1" && to == "v1alpha1":
		return remembering(content, from, to, setDown, SetUp)
	}
	return fmt.Errorf("no way from %s to %s", from, to)
}

// SetUp turns the spec of a UnitedDeployment or a v1alpha1 YurtAppSet into that of a v1beta1 YurtAppSet.
func SetUp(spec map[string]any) (map[string]any, error) {
	var old v1alpha1.SetSpec
	if err := Into(spec, &old); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	template := copyOf(section(spec, "workloadTemplate"))
	workload := map[string]any{"workloadTemplate": template}
	var pools, tweaks []any
	for i, p := range old.Topology.Pools {
		name := PoolName(p)
		pools = append(pools, name)
		t, err := poolTweaks(p, template)
		if err != nil {
			return nil, fmt.Errorf("spec.topology.pools[%d].patch: %w", i, err)
		}
		if len(t) > 0 {
			tweaks = append(tweaks, map[string]any{"pools": []any{name}, "tweaks": t})
		}
	}
	out := map[string]any{"workload": workload}
	if len(pools) > 0 {
		out["pools"] = pools
	}
	if len(tweaks) > 0 {
		workload["workloadTweaks"] = tweaks
	}
	if old.RevisionHistoryLimit != nil {
		out["revisionHistoryLimit"] = *old.RevisionHistoryLimit
	}
	return out, nil
}

// PoolName is the node pool that an entry of a topology means: the value of the pool label in its node selector, or else its name.
func PoolName(p v1alpha1.Pool) string {
	if p.NodeSelectorTerm != nil {
		for _, e := range p.NodeSelectorTerm.MatchExpressions {
			if e.Key == v1beta2.LabelPool && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
				return e.Values[0]
			}
		}
	}
	return p.Name
}

// poolTweaks are the differences of one pool as v1beta1 tweaks.
func poolTweaks(p v1alpha1.Pool, template map[string]any) (map[string]any, error) {
	out := map[string]any{}
	if p.Replicas != nil {
		out["replicas"] = *p.Replicas
	}
	var patches []any
	if len(p.Tolerations) > 0 {
		list := make([]any, len(p.Tolerations))
		for i, t := range p.Tolerations {
			list[i] = copyOf(t)
		}
		patches = append(patches, step(tolerationsPath, "add", list))
	}
	if len(p.Patch) > 0 {
		steps, err := patchSteps(p.Patch, template, patches)
		if err != nil {
			return nil, err
		}
		patches = append(patches, steps...)
	}
	if len(patches) > 0 {
		out["patches"] = patches
	}
	return out, nil
}

// patchSteps says a strategic merge patch on the template as steps of a JSON patch.
func patchSteps(patch, template map[string]any, tolerations []any) ([]any, error) {
	var base map[string]any
	var kind any
	if t, ok := template["deploymentTemplate"].(map[string]any); ok {
		base, kind = copyOf(t), appsv1.Deployment{}
	} else if t, ok := template["statefulSetTemplate"].(map[string]any); ok {
		base, kind = copyOf(t), appsv1.StatefulSet{}
	} else {
		return nil, nil // refused elsewhere: there is nothing to patch
	}
	if len(tolerations) > 0 { // they come first
		pod := section(section(section(base, "spec"), "template"), "spec")
		pod["tolerations"] = tolerations[0].(map[string]any)["value"]
	}
	patched, err := strategicpatch.StrategicMergeMapPatch(copyOf(base), copyOf(patch), kind)
	if err != nil {
		return nil, err
	}
	// What the library made of numbers is made JSON's again.
	var clean map[string]any
	if err := Into(patched, &clean); err != nil {
		return nil, err
	}
	return difference("", base, clean), nil
}

// difference lists the steps that turn a into b.
func difference(path string, a, b any) []any {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			return differenceOfMaps(path, a, b)
		}
	case []any:
		if b, ok := b.([]any); ok && len(a) == len(b) {
			var out []any
			for i := range a {
				out = append(out, difference(path+"/"+strconv.Itoa(i), a[i], b[i])...)
			}
			return out
		}
	}
	return []any{step(path, "replace", b)}
}

func differenceOfMaps(path string, a, b map[string]any) []any {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	sorted := make([]string, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	var out []any
	for _, k := range sorted {
		at := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		from, had := a[k]
		to, has := b[k]
		switch {
		case !has:
			out = append(out, map[string]any{"path": at, "operation": "remove"})
		case !had:
			out = append(out, step(at, "add", to))
		default:
			out = append(out, difference(at, from, to)...)
		}
	}
	return out
}

func step(path, operation string, value any) map[string]any {
	return map[string]any{"path": path, "operation": operation, "value": value}
}

// setDown turns a v1beta1 spec into v1alpha1: pools by name, with the replicas and tolerations that are theirs alone.
func setDown(spec map[string]any) (map[string]any, error) {
	var s v1beta1.YurtAppSetSpec
	if err := Into(spec, &s); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	out := map[string]any{"workloadTemplate": copyOf(section(section(spec, "workload"), "workloadTemplate"))}
	if labels, ok := podLabels(out); ok {
		out["selector"] = labels
	}
	var pools []any
	for _, name := range s.Pools {
		p := map[string]any{"name": name, "nodeSelectorTerm": map[string]any{"matchExpressions": []any{
			map[string]any{"key": v1beta2.LabelPool, "operator": "In", "values": []any{name}}}}}
		for _, t := range s.Workload.WorkloadTweaks {
			if !slices.Contains(t.Pools, name) {
				continue
			}
			if t.Tweaks.Replicas != nil {
				p["replicas"] = *t.Tweaks.Replicas
			}
			for _, patch := range t.Tweaks.Patches {
				if list, ok := patch.Value.([]any); ok && patch.Path == tolerationsPath && patch.Operation != "remove" {
					p["tolerations"] = list
				}
			}
		}
		pools = append(pools, p)
	}
	if len(pools) > 0 {
		out["topology"] = map[string]any{"pools": pools}
	}
	if v, ok := spec["revisionHistoryLimit"]; ok {
		out["revisionHistoryLimit"] = v
	}
	return cleaned(out)
}

// podLabels is the selector of the template.
func podLabels(spec map[string]any) (any, bool) {
	for _, t := range section(spec, "workloadTemplate") {
		if t, ok := t.(map[string]any); ok {
			s, has := section(t, "spec")["selector"].(map[string]any)
			if has {
				return copyOf(s), true
			}
		}
	}
	return nil, false
}

// cleaned passes content through JSON, so that all of it is of JSON's types.
func cleaned(m map[string]any) (map[string]any, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, Into(json.RawMessage(data), &out)
}
