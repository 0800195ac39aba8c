package check

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1alpha1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// AppSet checks a YurtAppSet of either version, a YurtAppDaemon or a UnitedDeployment.
func AppSet(obj, _ *unstructured.Unstructured) conversion.Verdict {
	path := field.NewPath("spec")
	spec, _ := obj.Object["spec"].(map[string]any)
	errs := append(gridName(obj, maxGridName), rollout(obj)...)
	if obj.GetKind() == v1beta1.KindYurtAppSet && obj.GroupVersionKind().Version == v1beta1.Version {
		return conversion.Verdict{Errors: append(errs, newSet(path, spec)...)}
	}
	template, _ := spec["workloadTemplate"].(map[string]any)
	errs = append(errs, oneTemplate(path.Child("workloadTemplate"), template)...)
	if obj.GetKind() != v1alpha1.KindYurtAppDaemon {
		errs = append(errs, topology(path.Child("topology", "pools"), spec)...)
	}
	return conversion.Verdict{Errors: errs}
}

// newSet checks the spec of a v1beta1 YurtAppSet.
func newSet(path *field.Path, spec map[string]any) field.ErrorList {
	var s v1beta1.YurtAppSetSpec
	if err := convert.Into(spec, &s); err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	workload, _ := spec["workload"].(map[string]any)
	template, _ := workload["workloadTemplate"].(map[string]any)
	errs := oneTemplate(path.Child("workload", "workloadTemplate"), template)
	names := containerNames(s.Workload.WorkloadTemplate)
	for i, t := range s.Workload.WorkloadTweaks {
		at := path.Child("workload", "workloadTweaks").Index(i).Child("tweaks")
		for j, c := range t.Tweaks.ContainerImages {
			if !slices.Contains(names, c.Name) {
				errs = append(errs, field.NotFound(at.Child("containerImages").Index(j).Child("name"), c.Name+": the template has no such container"))
			}
		}
		for j, p := range t.Tweaks.Patches {
			if !strings.HasPrefix(p.Path, "/spec/") && !strings.HasPrefix(p.Path, "/metadata/labels") && !strings.HasPrefix(p.Path, "/metadata/annotations") {
				errs = append(errs, field.Invalid(at.Child("patches").Index(j).Child("path"), p.Path, "must begin with /spec/, /metadata/labels or /metadata/annotations"))
			}
		}
	}
	return errs
}

// oneTemplate checks that there is exactly one template, and that one.
func oneTemplate(path *field.Path, template map[string]any) field.ErrorList {
	if len(template) != 1 {
		return field.ErrorList{field.Required(path, "give exactly one of deploymentTemplate and statefulSetTemplate")}
	}
	kinds := map[string]string{"deploymentTemplate": placement.Deployment, "statefulSetTemplate": placement.StatefulSet}
	for name, content := range template {
		t, _ := content.(map[string]any)
		spec, _ := t["spec"].(map[string]any)
		return workload(path.Child(name, "spec"), kinds[name], spec, v1beta2.LabelPool)
	}
	return nil
}

// topology checks the pools of the old shape.
func topology(path *field.Path, spec map[string]any) field.ErrorList {
	var s v1alpha1.SetSpec
	if err := convert.Into(spec, &s); err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, p := range s.Topology.Pools {
		if name := convert.PoolName(p); seen[name] {
			errs = append(errs, field.Duplicate(path.Index(i).Child("name"), name))
		} else {
			seen[name] = true
		}
		if p.NodeSelectorTerm == nil {
			continue
		}
		at := path.Index(i).Child("nodeSelectorTerm")
		if len(p.NodeSelectorTerm.MatchFields) > 0 {
			errs = append(errs, field.Forbidden(at.Child("matchFields"), "pools are made by the label "+v1beta2.LabelPool))
		}
		for j, e := range p.NodeSelectorTerm.MatchExpressions {
			if e.Key != v1beta2.LabelPool || e.Operator != corev1.NodeSelectorOpIn || len(e.Values) != 1 {
				errs = append(errs, field.Invalid(at.Child("matchExpressions").Index(j), e.Key,
					"only "+v1beta2.LabelPool+" In [one pool] is understood: give the nodes that label"))
			}
		}
	}
	if _, err := convert.SetUp(spec); err != nil {
		errs = append(errs, field.Invalid(path, "", err.Error()))
	}
	return errs
}

func containerNames(t v1beta1.WorkloadTemplate) []string {
	var out []string
	for _, t := range []*v1beta1.Template{t.DeploymentTemplate, t.StatefulSetTemplate} {
		if t == nil {
			continue
		}
		var spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		}
		if convert.Into(t.Spec, &spec) == nil {
			for _, c := range slices.Concat(spec.Template.Spec.InitContainers, spec.Template.Spec.Containers) {
				out = append(out, c.Name)
			}
		}
	}
	return out
}
