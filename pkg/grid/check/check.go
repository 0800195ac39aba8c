// Package check says what is wrong with an object of the grid's kinds before it is stored: pure, object in, verdict out. Each error
// names the field and what to do. Rooms of pkg/grid may import it.
package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	sigsjson "sigs.k8s.io/json"

	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// maxGridName leaves room for "-" and a unit of one letter in a name of 63.
const maxGridName = 61

// unknown finds the field in what the strict decoder says.
var unknown = regexp.MustCompile(`^(?:unknown|duplicate) field "(.*)"$`)

// Grid returns the check of DeploymentGrid or StatefulSetGrid.
func Grid(kind string) func(obj, old *unstructured.Unstructured) conversion.Verdict {
	return func(obj, _ *unstructured.Unstructured) conversion.Verdict {
		var spec superedge.GridSpec
		path := field.NewPath("spec")
		if err := convert.Into(obj.Object["spec"], &spec); err != nil {
			return refuse(field.Invalid(path, "", err.Error()))
		}
		errs := gridName(obj, maxGridName)
		errs = append(errs, nodeLabel(path.Child("gridUniqKey"), spec.GridUniqKey)...)
		if len(spec.Template) > 0 {
			errs = append(errs, workload(path.Child("template"), kind, spec.Template, spec.GridUniqKey)...)
		}
		pool := path.Child("templatePool")
		for _, name := range slices.Sorted(maps.Keys(spec.TemplatePool)) {
			errs = append(errs, workload(pool.Key(name), kind, spec.TemplatePool[name], spec.GridUniqKey)...)
		}
		errs = append(errs, templates(path, spec)...)
		return conversion.Verdict{Warnings: federation(obj), Errors: append(errs, rollout(obj)...)}
	}
}

// templates checks that every name of a template stands for one.
func templates(path *field.Path, spec superedge.GridSpec) field.ErrorList {
	var errs field.ErrorList
	known := func(at *field.Path, name string) {
		if name == "" || name == superedge.DefaultTemplate {
			if len(spec.Template) == 0 && len(spec.TemplatePool[superedge.DefaultTemplate]) == 0 {
				errs = append(errs, field.Required(path.Child("template"), fmt.Sprintf("%s means it", at)))
			}
			return
		}
		if _, ok := spec.TemplatePool[name]; !ok {
			errs = append(errs, field.NotFound(at, name+": name a template of spec.templatePool, or default"))
		}
	}
	known(path.Child("defaultTemplateName"), spec.DefaultTemplateName)
	for _, unit := range slices.Sorted(maps.Keys(spec.Templates)) {
		known(path.Child("templates").Key(unit), spec.Templates[unit])
	}
	return errs
}

// ServiceGrid checks a ServiceGrid.
func ServiceGrid(obj, _ *unstructured.Unstructured) conversion.Verdict {
	var spec superedge.ServiceGridSpec
	path := field.NewPath("spec")
	if err := convert.Into(obj.Object["spec"], &spec); err != nil {
		return refuse(field.Invalid(path, "", err.Error()))
	}
	errs := gridName(obj, validation.DNS1035LabelMaxLength-len(superedge.ServiceSuffix))
	errs = append(errs, nodeLabel(path.Child("gridUniqKey"), spec.GridUniqKey)...)
	var service corev1.ServiceSpec
	at := path.Child("template")
	if bad := strict(at, spec.Template, &service); bad != nil {
		return conversion.Verdict{Errors: append(errs, bad...)}
	}
	if len(service.Ports) == 0 && service.ClusterIP != corev1.ClusterIPNone && service.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(at.Child("ports"), "a Service needs a port, unless clusterIP is None"))
	}
	for i, p := range service.Ports {
		for _, msg := range validation.IsValidPortNum(int(p.Port)) {
			errs = append(errs, field.Invalid(at.Child("ports").Index(i).Child("port"), p.Port, msg))
		}
	}
	return conversion.Verdict{Warnings: federation(obj), Errors: errs}
}

// federation warns of a grid that asks to be copied into other clusters.
func federation(obj *unstructured.Unstructured) []string {
	var out []string
	for field, has := range map[string]map[string]string{"labels": obj.GetLabels(), "annotations": obj.GetAnnotations()} {
		if v, ok := has[superedge.LabelFederated]; ok && v != "no" {
			out = append(out, fmt.Sprintf("metadata.%s[%s] has no effect: kedge copies grids to no other cluster; apply it in each of them", field, superedge.LabelFederated))
		}
	}
	slices.Sort(out)
	return out
}

// workload checks the spec of a Deployment or StatefulSet; key is the node label that the grid itself selects by.
func workload(path *field.Path, kind string, template map[string]any, key string) field.ErrorList {
	var selector *metav1.LabelSelector
	var pod corev1.PodTemplateSpec
	var replicas *int32
	var errs field.ErrorList
	switch kind {
	case placement.StatefulSet:
		var s appsv1.StatefulSetSpec
		errs = strict(path, template, &s)
		selector, pod, replicas = s.Selector, s.Template, s.Replicas
	default:
		var d appsv1.DeploymentSpec
		errs = strict(path, template, &d)
		selector, pod, replicas = d.Selector, d.Template, d.Replicas
	}
	if errs != nil {
		return errs
	}
	if replicas != nil && *replicas < 0 {
		errs = append(errs, field.Invalid(path.Child("replicas"), *replicas, "must not be negative"))
	}
	inner := path.Child("template", "spec")
	if len(pod.Spec.Containers) == 0 {
		errs = append(errs, field.Required(inner.Child("containers"), "a pod needs a container"))
	}
	if _, taken := pod.Spec.NodeSelector[key]; taken && key != "" {
		errs = append(errs, field.Forbidden(inner.Child("nodeSelector").Key(key), "the grid sets it for each unit: leave it out"))
	}
	return append(errs, matching(path, selector, pod.Labels)...)
}

// matching checks that a selector chooses the pods of its own template.
func matching(path *field.Path, selector *metav1.LabelSelector, labels map[string]string) field.ErrorList {
	at := path.Child("selector")
	if selector == nil || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return field.ErrorList{field.Required(at, "say which labels of the template choose its pods")}
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return field.ErrorList{field.Invalid(at, "", err.Error())}
	}
	if !s.Matches(labelSet(labels)) {
		return field.ErrorList{field.Invalid(path.Child("template", "metadata", "labels"), labels, "spec's selector does not choose them")}
	}
	return nil
}

// strict reads content and names each field that the kind does not have.
func strict(path *field.Path, content map[string]any, into any) field.ErrorList {
	data, err := json.Marshal(content)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	wrong, err := sigsjson.UnmarshalStrict(data, into)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", strings.TrimPrefix(err.Error(), "json: "))}
	}
	var errs field.ErrorList
	for _, e := range wrong {
		at := path
		if m := unknown.FindStringSubmatch(e.Error()); m != nil {
			at = path.Child(m[1])
		}
		errs = append(errs, field.Forbidden(at, "there is no such field: mind the spelling, or remove it"))
	}
	return errs
}

func gridName(obj *unstructured.Unstructured, longest int) field.ErrorList {
	if n := obj.GetName(); len(n) > longest {
		return field.ErrorList{field.TooLong(field.NewPath("metadata", "name"), n, longest)}
	}
	return nil
}

// nodeLabel checks the name of a label.
func nodeLabel(path *field.Path, key string) field.ErrorList {
	var errs field.ErrorList
	if key == "" {
		return field.ErrorList{field.Required(path, "name a label of nodes")}
	}
	for _, msg := range validation.IsQualifiedName(key) {
		errs = append(errs, field.Invalid(path, key, msg))
	}
	return errs
}

// rollout checks the annotations that slow a rollout down.
func rollout(obj *unstructured.Unstructured) field.ErrorList {
	if name, err := placement.CheckRollout(obj.GetAnnotations()); err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(name), obj.GetAnnotations()[name], err.Error())}
	}
	return nil
}

func refuse(errs ...*field.Error) conversion.Verdict { return conversion.Verdict{Errors: errs} }
