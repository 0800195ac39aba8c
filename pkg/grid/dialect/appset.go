package dialect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1alpha1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// Pool is a NodePool as far as sets look at it.
type Pool struct {
	Name   string
	Labels map[string]string
	Taints []corev1.Taint
}

// AppSet reads a YurtAppSet (v1beta1), a YurtAppDaemon or a UnitedDeployment. known says of a listed pool whether it is there. It
// returns also the names of listed pools that are not.
func AppSet(obj *unstructured.Unstructured, pools map[string]Pool, known func(name string) bool) (*placement.Set, []string, error) {
	spec, err := appSetSpec(obj)
	if err != nil {
		return nil, nil, err
	}
	s := &placement.Set{
		Kind: placement.Deployment, Namespace: obj.GetNamespace(), Name: obj.GetName(), Owner: ownerOf(obj), Key: v1beta2.LabelPool,
		Only: map[string]bool{}, Templates: map[string]placement.Template{}, ByUnit: map[string]string{},
		Marks: map[string]string{v1beta1.LabelSet: obj.GetName()}, UnitLabel: v1beta1.LabelPoolName, UnitAnnotation: v1beta1.AnnotationPool,
		Rollout: placement.ReadRollout(obj.GetAnnotations()),
	}
	template := spec.Workload.WorkloadTemplate.DeploymentTemplate
	if t := spec.Workload.WorkloadTemplate.StatefulSetTemplate; t != nil {
		s.Kind, template = placement.StatefulSet, t
	}
	if template == nil {
		return nil, nil, fmt.Errorf("workloadTemplate is empty")
	}
	var missing []string
	for _, name := range chosen(spec, pools) {
		if _, is := pools[name]; !is && !known(name) {
			missing = append(missing, name)
			continue
		}
		s.Only[name], s.ByUnit[name] = true, name
		t, err := poolTemplate(spec, template, pools[name], name)
		if err != nil {
			return nil, nil, fmt.Errorf("pool %s: %w", name, err)
		}
		s.Templates[name] = t
	}
	return s, missing, nil
}

// appSetSpec is the spec in the shape of v1beta1.
func appSetSpec(obj *unstructured.Unstructured) (v1beta1.YurtAppSetSpec, error) {
	var out v1beta1.YurtAppSetSpec
	content, _ := obj.Object["spec"].(map[string]any)
	switch obj.GetKind() {
	case v1alpha1.KindUnitedDeployment:
		var err error
		if content, err = convert.SetUp(content); err != nil {
			return out, fmt.Errorf("read spec: %w", err)
		}
	case v1alpha1.KindYurtAppDaemon:
		content = map[string]any{"nodepoolSelector": content["nodepoolSelector"], "workload": map[string]any{"workloadTemplate": content["workloadTemplate"]}}
	}
	if err := convert.Into(content, &out); err != nil {
		return out, fmt.Errorf("read spec: %w", err)
	}
	return out, nil
}

// chosen are the pools that a set lists or selects, sorted.
func chosen(spec v1beta1.YurtAppSetSpec, pools map[string]Pool) []string {
	out := slices.Clone(spec.Pools)
	for name, p := range pools {
		if selects(spec.NodePoolSelector, p.Labels) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// poolTemplate is the template of one pool: the common one with the pool's tweaks, and able to run where the pool's own taints are.
func poolTemplate(spec v1beta1.YurtAppSetSpec, common *v1beta1.Template, pool Pool, name string) (placement.Template, error) {
	content := map[string]any{"metadata": runtime.DeepCopyJSON(common.Metadata), "spec": runtime.DeepCopyJSON(common.Spec)}
	tolerate(content, pool.Taints)
	for i, t := range spec.Workload.WorkloadTweaks {
		if !slices.Contains(t.Pools, name) && !selects(t.NodePoolSelector, pool.Labels) {
			continue
		}
		if err := tweak(&content, t.Tweaks); err != nil {
			return placement.Template{}, fmt.Errorf("workloadTweaks[%d]: %w", i, err)
		}
	}
	metadata, _ := content["metadata"].(map[string]any)
	changed, ok := content["spec"].(map[string]any)
	if !ok {
		return placement.Template{}, fmt.Errorf("the patches leave no spec")
	}
	return placement.NewTemplate(metadata, changed)
}

// tolerate adds tolerations of taints.
func tolerate(content map[string]any, taints []corev1.Taint) {
	if len(taints) == 0 {
		return
	}
	pod, found, _ := unstructured.NestedMap(content, "spec", "template", "spec")
	if !found {
		return
	}
	list, _ := pod["tolerations"].([]any)
	for _, t := range taints {
		toleration := map[string]any{"key": t.Key, "operator": "Exists", "effect": string(t.Effect)}
		if t.Value != "" {
			toleration["operator"], toleration["value"] = "Equal", t.Value
		}
		list = append(list, toleration)
	}
	_ = unstructured.SetNestedSlice(content, list, "spec", "template", "spec", "tolerations")
}

// tweak changes content: replicas, then images, then patches.
func tweak(content *map[string]any, t v1beta1.Tweaks) error {
	if t.Replicas != nil {
		if err := unstructured.SetNestedField(*content, *t.Replicas, "spec", "replicas"); err != nil {
			return err
		}
	}
	for _, kind := range []string{"initContainers", "containers"} {
		list, _, _ := unstructured.NestedSlice(*content, "spec", "template", "spec", kind)
		for _, c := range list {
			c, _ := c.(map[string]any)
			for _, image := range t.ContainerImages {
				if c["name"] == image.Name {
					c["image"] = image.TargetImage
				}
			}
		}
		if len(list) > 0 {
			if err := unstructured.SetNestedSlice(*content, list, "spec", "template", "spec", kind); err != nil {
				return err
			}
		}
	}
	if len(t.Patches) == 0 {
		return nil
	}
	return patch(content, t.Patches)
}

// patch applies steps of a JSON patch. Parents that are not there are made, as users of merge patches expect.
func patch(content *map[string]any, steps []v1beta1.Patch) error {
	ops := make([]map[string]any, len(steps))
	for i, p := range steps {
		ops[i] = map[string]any{"op": p.Operation, "path": p.Path}
		if p.Operation != "remove" {
			ops[i]["value"] = p.Value
		}
		if p.Operation == "replace" && strings.Contains(p.Path, "/") { // of a field that the template leaves out, too
			ops[i]["op"] = replaceOrAdd(*content, p.Path)
		}
	}
	text, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	decoded, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return fmt.Errorf("patches: %w", err)
	}
	before, err := json.Marshal(*content)
	if err != nil {
		return err
	}
	options := jsonpatch.NewApplyOptions()
	options.EnsurePathExistsOnAdd, options.AllowMissingPathOnRemove = true, true
	after, err := decoded.ApplyWithOptions(before, options)
	if err != nil {
		return fmt.Errorf("patches: %w", err)
	}
	out := map[string]any{}
	if err := convert.Into(json.RawMessage(after), &out); err != nil {
		return fmt.Errorf("patches: %w", err)
	}
	*content = out
	return nil
}

// replaceOrAdd is the operation that sets a field whether or not it is there. Elements of lists are replaced.
func replaceOrAdd(content map[string]any, path string) string {
	var at any = content
	for step := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		m, ok := at.(map[string]any)
		if !ok {
			return "replace"
		}
		if at, ok = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]; !ok {
			return "add"
		}
	}
	return "replace"
}

func labelSet(m map[string]string) labels.Set { return labels.Set(m) }
