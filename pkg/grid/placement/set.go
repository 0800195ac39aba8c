// Package placement decides which workloads a set of units gets: pure, (set, units, what lives) in, what to do out. It knows neither
// dialects nor the API. Rooms of pkg/grid may import it.
package placement

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Kinds of workloads.
const (
	Deployment  = "Deployment"
	StatefulSet = "StatefulSet"
)

const (
	// AnnotationMaxUnavailable of a grid is how many of its units, as a number or a percentage, may be not ready while it is updated.
	// Without it all units are updated at once.
	AnnotationMaxUnavailable = "grid.kedge.io/max-unavailable-units"
	// AnnotationPaused set to "true" on a grid holds back all updates; new units still get their workloads.
	AnnotationPaused = "grid.kedge.io/paused"
	// AnnotationHash, on a workload, is the hash of the template that it is made of.
	AnnotationHash = "grid.kedge.io/template-hash"
	// LabelUnit, on a workload and its pods, is the unit.
	LabelUnit = "grid.kedge.io/unit"
)

// Limits of names that Kubernetes derives further names and labels from.
const (
	maxDeploymentName  = 63
	maxStatefulSetName = 52 // and "-" and a revision of 10 characters in a label of 63
)

// Set is a set of like workloads, one for each unit.
type Set struct {
	Kind            string // Deployment or StatefulSet
	Namespace, Name string
	// Owner is the owner reference of what is generated.
	Owner map[string]any
	// Key is the node label whose values are the units.
	Key string
	// Only, when not nil, are the units that there are, with or without nodes; otherwise each value that a node has is one.
	Only map[string]bool
	// Templates by name; ByUnit names the one of a unit, Default that of all others.
	Templates map[string]Template
	ByUnit    map[string]string
	Default   string
	// Labels go onto the workload; Marks also onto its pods and into its selector. UnitLabel is a mark whose value is the unit.
	Labels, Marks map[string]string
	UnitLabel     string
	// HashLabel, when set, is a label of the pods that holds the template's hash; UnitAnnotation one of the workload that holds the unit.
	HashLabel, UnitAnnotation string
	Rollout                   Rollout
}

// Template is what workloads are made of, as JSON content.
type Template struct {
	Labels, Annotations map[string]any
	Spec                map[string]any
	Hash                string
}

// NewTemplate takes the content of a template; metadata may be nil.
func NewTemplate(metadata, spec map[string]any) (Template, error) {
	data, err := json.Marshal([]any{metadata["labels"], metadata["annotations"], spec})
	if err != nil {
		return Template{}, fmt.Errorf("hash the template: %w", err)
	}
	sum := sha256.Sum256(data)
	t := Template{Spec: spec, Hash: hex.EncodeToString(sum[:5])}
	t.Labels, _ = metadata["labels"].(map[string]any)
	t.Annotations, _ = metadata["annotations"].(map[string]any)
	return t, nil
}

// Rollout is how fast an update goes through the units. Max is the most units that may be not ready, 0 for all; Percent says
// that it is a share of the units.
type Rollout struct {
	Max     int
	Percent bool
	Paused  bool
}

// ReadRollout reads the annotations of a grid; what CheckRollout refuses counts as the most careful choice.
func ReadRollout(annotations map[string]string) Rollout {
	r := Rollout{Paused: annotations[AnnotationPaused] == "true"}
	text, ok := annotations[AnnotationMaxUnavailable]
	if !ok {
		return r
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return Rollout{Max: 1, Paused: r.Paused}
	}
	r.Max, r.Percent = n, percent
	return r
}

// CheckRollout says which annotation is wrong, and why.
func CheckRollout(annotations map[string]string) (string, error) {
	if v, ok := annotations[AnnotationPaused]; ok && v != "true" && v != "false" {
		return AnnotationPaused, fmt.Errorf("must be true or false")
	}
	if v, ok := annotations[AnnotationMaxUnavailable]; ok {
		number, percent := strings.CutSuffix(v, "%")
		if n, err := strconv.Atoi(number); err != nil || n < 1 || percent && n > 100 {
			return AnnotationMaxUnavailable, fmt.Errorf("must be a number of units from 1, or a percentage from 1%% to 100%%")
		}
	}
	return "", nil
}

// budget is how many of so many units may be not ready.
func (r Rollout) budget(units int) int {
	switch {
	case r.Max == 0:
		return units
	case r.Percent:
		return max(1, units*r.Max/100)
	}
	return r.Max
}

// Gated says whether updates look at other units.
func (r Rollout) Gated() bool { return r.Max > 0 || r.Paused }

// WorkloadName is the name of the workload of a unit.
func (s *Set) WorkloadName(unit string) string { return s.Name + "-" + unit }

// TemplateOf is the template of a unit, and its name.
func (s *Set) TemplateOf(unit string) (Template, string, error) {
	name, ok := s.ByUnit[unit]
	if !ok {
		name = s.Default
	}
	t, ok := s.Templates[name]
	if !ok {
		return Template{}, name, fmt.Errorf("template %q does not exist", name)
	}
	return t, name, nil
}

// problem says why a unit cannot have a workload.
func (s *Set) problem(unit string) string {
	name := s.WorkloadName(unit)
	bad, limit := validation.IsDNS1123Subdomain(name), maxDeploymentName
	if s.Kind == StatefulSet {
		bad, limit = validation.IsDNS1123Label(name), maxStatefulSetName
	}
	switch {
	case len(name) > limit:
		return fmt.Sprintf("the name %s is longer than %d characters: use a shorter value of the label %s, or a shorter name of the grid", name, limit, s.Key)
	case len(bad) > 0:
		return fmt.Sprintf("%q cannot be part of a name: use lower case letters, digits and - in the label %s", unit, s.Key)
	}
	if _, _, err := s.TemplateOf(unit); err != nil {
		return err.Error()
	}
	return ""
}

// Render makes the workload of a unit. Nothing in it is shared with the set or with other units.
func (s *Set) Render(unit string) (map[string]any, error) {
	t, _, err := s.TemplateOf(unit)
	if err != nil {
		return nil, err
	}
	spec := runtime.DeepCopyJSON(t.Spec)
	marks := map[string]any{}
	for k, v := range s.Marks {
		marks[k] = v
	}
	marks[s.UnitLabel] = unit
	pod := child(spec, "template")
	podLabels := child(child(pod, "metadata"), "labels")
	maps.Copy(podLabels, marks)
	if s.HashLabel != "" {
		podLabels[s.HashLabel] = t.Hash
	}
	maps.Copy(child(child(spec, "selector"), "matchLabels"), marks)
	child(child(pod, "spec"), "nodeSelector")[s.Key] = unit

	labels := runtime.DeepCopyJSON(t.Labels)
	if labels == nil {
		labels = map[string]any{}
	}
	for k, v := range s.Labels {
		labels[k] = v
	}
	maps.Copy(labels, marks)
	annotations := runtime.DeepCopyJSON(t.Annotations)
	if annotations == nil {
		annotations = map[string]any{}
	}
	annotations[AnnotationHash] = t.Hash
	if s.UnitAnnotation != "" {
		annotations[s.UnitAnnotation] = unit
	}
	return map[string]any{
		"apiVersion": "apps/v1", "kind": s.Kind, "spec": spec,
		"metadata": map[string]any{
			"name": s.WorkloadName(unit), "namespace": s.Namespace, "labels": labels, "annotations": annotations,
			"ownerReferences": []any{runtime.DeepCopyJSON(s.Owner)},
		},
	}, nil
}

// child returns a map inside a map, and makes it when it is not there.
func child(m map[string]any, key string) map[string]any {
	c, ok := m[key].(map[string]any)
	if !ok {
		c = map[string]any{}
		m[key] = c
	}
	return c
}

// Unused names the templates of a pool that no unit can have, sorted.
func Unused(pool []string, byUnit map[string]string, standard string) []string {
	var out []string
	used := slices.Collect(maps.Values(byUnit))
	for _, name := range pool {
		if name != standard && !slices.Contains(used, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
