// Package dialect reads the grid's kinds and says them in the engine's terms: pure, object in, set of placement out.
// Rooms of pkg/grid may import it.
package dialect

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/grid/traffic"
)

// ownerOf is the owner reference to obj.
func ownerOf(obj *unstructured.Unstructured) map[string]any {
	return map[string]any{
		"apiVersion": obj.GetAPIVersion(), "kind": obj.GetKind(), "name": obj.GetName(), "uid": string(obj.GetUID()),
		"controller": true, "blockOwnerDeletion": true,
	}
}

// Grid reads a DeploymentGrid or StatefulSetGrid.
func Grid(obj *unstructured.Unstructured) (*placement.Set, error) {
	var spec superedge.GridSpec
	if err := convert.Into(obj.Object["spec"], &spec); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	s := &placement.Set{
		Kind: placement.Deployment, Namespace: obj.GetNamespace(), Name: obj.GetName(), Owner: ownerOf(obj), Key: spec.GridUniqKey,
		Templates: map[string]placement.Template{}, ByUnit: map[string]string{}, Default: superedge.DefaultTemplate,
		Marks: map[string]string{superedge.LabelGrid: obj.GetName()}, Labels: map[string]string{superedge.LabelKey: keyLabel(spec.GridUniqKey)},
		UnitLabel: placement.LabelUnit, HashLabel: superedge.LabelTemplate, Rollout: placement.ReadRollout(obj.GetAnnotations()),
	}
	if obj.GetKind() == superedge.KindStatefulSetGrid {
		s.Kind = placement.StatefulSet
	}
	if spec.DefaultTemplateName != "" {
		s.Default = spec.DefaultTemplateName
	}
	for unit, name := range spec.Templates {
		if name == "" {
			name = superedge.DefaultTemplate
		}
		s.ByUnit[unit] = name
	}
	templates := maps.Clone(spec.TemplatePool)
	if templates == nil {
		templates = map[string]map[string]any{}
	}
	if _, named := templates[superedge.DefaultTemplate]; !named && len(spec.Template) > 0 {
		templates[superedge.DefaultTemplate] = spec.Template
	}
	for name, content := range templates {
		t, err := placement.NewTemplate(nil, content)
		if err != nil {
			return nil, fmt.Errorf("template %s: %w", name, err)
		}
		s.Templates[name] = t
	}
	return s, nil
}

// keyLabel is a label's name as a label's value, which has no slash.
func keyLabel(key string) string { return strings.ReplaceAll(key, "/", "_") }

// UnusedTemplates names the templates of the pool that the grid wants to be rid of.
func UnusedTemplates(obj *unstructured.Unstructured) []string {
	if wants, _, _ := unstructured.NestedBool(obj.Object, "spec", "autoDeleteUnusedTemplate"); !wants {
		return nil
	}
	var spec superedge.GridSpec
	if convert.Into(obj.Object["spec"], &spec) != nil {
		return nil
	}
	return placement.Unused(slices.Collect(maps.Keys(spec.TemplatePool)), spec.Templates, spec.DefaultTemplateName)
}

// Service makes the Service of a ServiceGrid.
func Service(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	var spec superedge.ServiceGridSpec
	if err := convert.Into(obj.Object["spec"], &spec); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	keys, err := json.Marshal([]string{spec.GridUniqKey})
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service", "spec": runtime.DeepCopyJSON(spec.Template),
		"metadata": map[string]any{
			"name": obj.GetName() + superedge.ServiceSuffix, "namespace": obj.GetNamespace(),
			"labels":          map[string]any{superedge.LabelGrid: obj.GetName(), superedge.LabelKey: keyLabel(spec.GridUniqKey)},
			"annotations":     map[string]any{superedge.AnnotationTopology: string(keys)},
			"ownerReferences": []any{ownerOf(obj)},
		},
	}}, nil
}

// Names is the annotation that tells nodes which StatefulSetGrids stand behind the Service of that name, or "".
func Names(grids []*unstructured.Unstructured, namespace, service string) string {
	names := map[string]string{}
	for _, g := range grids {
		if g.GetNamespace() != namespace || g.GetKind() != superedge.KindStatefulSetGrid || g.GetDeletionTimestamp() != nil {
			continue
		}
		if slices.Contains(ServiceNames(g), service) {
			key, _, _ := unstructured.NestedString(g.Object, "spec", "gridUniqKey")
			names[g.GetName()] = key
		}
	}
	if len(names) == 0 {
		return ""
	}
	data, err := json.Marshal(names)
	if err != nil {
		return ""
	}
	return string(data)
}

// AnnotationNames is where Names goes.
const AnnotationNames = traffic.AnnotationNames

// ServiceNames are the Services that the templates of a StatefulSetGrid name.
func ServiceNames(grid *unstructured.Unstructured) []string {
	var spec superedge.GridSpec
	if convert.Into(grid.Object["spec"], &spec) != nil {
		return nil
	}
	var out []string
	for _, t := range append(slices.Collect(maps.Values(spec.TemplatePool)), spec.Template) {
		if name, _ := t["serviceName"].(string); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// selects says whether a label selector chooses labels; nil chooses nothing.
func selects(s *metav1.LabelSelector, labels map[string]string) bool {
	if s == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && !selector.Empty() && selector.Matches(labelSet(labels))
}
