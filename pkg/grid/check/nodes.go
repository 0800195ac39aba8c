package check

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid/convert"
)

// NodeUnit checks a NodeUnit of either version, and names fields as that version does.
func NodeUnit(obj, _ *unstructured.Unstructured) conversion.Verdict {
	content, old, path := obj.Object, obj.GroupVersionKind().Version == site.OldVersion, field.NewPath("spec")
	set, taints := path.Child("setNode"), path.Child("setNode", "taints")
	if old {
		set, taints = path.Child("setnode"), path.Child("taints")
		content = obj.DeepCopy().Object
		if err := convert.NodeUnit(content, site.OldVersion, site.Version); err != nil {
			return refuse(field.Invalid(path, "", err.Error()))
		}
	}
	var spec site.NodeUnitSpec
	if err := convert.Into(content["spec"], &spec); err != nil {
		return refuse(field.Invalid(path, "", err.Error()))
	}
	errs := nodeLabel(field.NewPath("metadata", "name"), obj.GetName()) // it becomes the name of a label
	for i, n := range spec.Nodes {
		for _, msg := range validation.IsDNS1123Subdomain(n) {
			errs = append(errs, field.Invalid(path.Child("nodes").Index(i), n, msg))
		}
	}
	errs = append(errs, selector(path.Child("selector"), spec.Selector)...)
	errs = append(errs, marks(set, spec.SetNode.Labels, spec.SetNode.Annotations)...)
	errs = append(errs, taintList(taints, spec.SetNode.Taints)...)
	if spec.Selector != nil {
		for k, v := range spec.Selector.MatchLabels {
			if mine, ok := spec.SetNode.Labels[k]; ok && mine != v {
				errs = append(errs, field.Invalid(set.Child("labels").Key(k), mine, "the unit's own selector wants "+v+": nodes would come and go"))
			}
		}
	}
	if spec.AutonomyLevel != "" && spec.AutonomyLevel != "L3" {
		errs = append(errs, field.NotSupported(path.Child("autonomyLevel"), spec.AutonomyLevel, []string{"L3"}))
	}
	raw, _ := content["spec"].(map[string]any)
	for _, name := range []string{"unitClusterInfo", "unitCredentialConfigMapRef"} {
		if _, given := raw[name]; given {
			errs = append(errs, field.Forbidden(path.Child(name), "kedge makes no cluster inside a unit: leave it out"))
		}
	}
	return conversion.Verdict{Errors: errs}
}

// NodeGroup checks a NodeGroup of either version.
func NodeGroup(obj, _ *unstructured.Unstructured) conversion.Verdict {
	content, path := obj.Object, field.NewPath("spec")
	keys := path.Child("autoFindNodeKeys")
	if obj.GroupVersionKind().Version == site.OldVersion {
		keys = path.Child("autofindnodekeys")
		content = obj.DeepCopy().Object
		if err := convert.NodeGroup(content, site.OldVersion, site.Version); err != nil {
			return refuse(field.Invalid(path, "", err.Error()))
		}
	}
	var spec site.NodeGroupSpec
	if err := convert.Into(content["spec"], &spec); err != nil {
		return refuse(field.Invalid(path, "", err.Error()))
	}
	errs := nodeLabel(field.NewPath("metadata", "name"), obj.GetName())
	for i, k := range spec.AutoFindNodeKeys {
		errs = append(errs, nodeLabel(keys.Index(i), k)...)
	}
	v := conversion.Verdict{Errors: append(errs, selector(path.Child("selector"), spec.Selector)...)}
	if len(spec.Workload) > 0 {
		v.Warnings = []string{"spec.workload has no effect in kedge: the status of each grid tells how its units are"}
	}
	return v
}

// NodePool checks a NodePool of any version.
func NodePool(obj, old *unstructured.Unstructured) conversion.Verdict {
	path := field.NewPath("spec")
	spec, _ := obj.Object["spec"].(map[string]any)
	var pool v1beta2.NodePoolSpec
	if err := convert.Into(spec, &pool); err != nil {
		return refuse(field.Invalid(path, "", err.Error()))
	}
	var v conversion.Verdict
	v.Errors = append(nodeLabel(field.NewPath("metadata", "name"), obj.GetName()), marks(path, pool.Labels, pool.Annotations)...)
	v.Errors = append(v.Errors, taintList(path.Child("taints"), pool.Taints)...)
	if old != nil {
		before, _ := old.Object["spec"].(map[string]any)
		was, had := before["interConnectivity"]
		now, has := spec["interConnectivity"]
		if had && (!has || was != now) {
			v.Errors = append(v.Errors, field.Forbidden(path.Child("interConnectivity"), "it cannot change"))
		}
	}
	for _, name := range []string{"hostNetwork", "enableLeaderElection"} {
		if on, _ := spec[name].(bool); on {
			v.Warnings = append(v.Warnings, "spec."+name+" has no effect in kedge")
		}
	}
	if s, _ := spec["selector"].(map[string]any); len(s) > 0 {
		v.Warnings = append(v.Warnings, "spec.selector has no effect: nodes join a pool by the label apps.openyurt.io/nodepool")
	}
	return v
}

func selector(path *field.Path, s *site.Selector) field.ErrorList {
	if s == nil {
		return nil
	}
	_, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchLabels: s.MatchLabels, MatchExpressions: s.MatchExpressions})
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	return nil
}

// marks checks labels and annotations that go onto nodes.
func marks(path *field.Path, labelled, annotated map[string]string) field.ErrorList {
	var errs field.ErrorList
	for _, k := range slices.Sorted(maps.Keys(labelled)) {
		errs = append(errs, nodeLabel(path.Child("labels").Key(k), k)...)
		for _, msg := range validation.IsValidLabelValue(labelled[k]) {
			errs = append(errs, field.Invalid(path.Child("labels").Key(k), labelled[k], msg))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(annotated)) {
		errs = append(errs, nodeLabel(path.Child("annotations").Key(k), k)...)
	}
	return errs
}

func taintList(path *field.Path, taints []corev1.Taint) field.ErrorList {
	var errs field.ErrorList
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	for i, t := range taints {
		errs = append(errs, nodeLabel(path.Index(i).Child("key"), t.Key)...)
		if !slices.Contains(effects, t.Effect) {
			errs = append(errs, field.NotSupported(path.Index(i).Child("effect"), t.Effect, effects))
		}
		for _, msg := range validation.IsValidLabelValue(t.Value) {
			errs = append(errs, field.Invalid(path.Index(i).Child("value"), t.Value, msg))
		}
	}
	return errs
}

func labelSet(m map[string]string) labels.Set { return labels.Set(m) }
