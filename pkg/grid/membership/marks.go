package membership

import (
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
)

// AnnotationRecord of a node is what units and pools put on it, and what was there before, so that it can be taken off again.
const AnnotationRecord = "grid.kedge.io/set-by-units"

// Marks are what units, groups and pools want on a node.
type Marks struct {
	Labels, Annotations map[string]string
	Taints              []corev1.Taint
	Unschedulable       bool
}

// MarksOf are the marks of a node. Where several decide, units go before pools, and the first unit wins; taints add up.
func (w World) MarksOf(node *corev1.Node) Marks {
	m := Marks{Labels: map[string]string{}, Annotations: map[string]string{}}
	units := w.UnitsOf(node)
	for _, u := range units {
		m.add(map[string]string{u.Name: site.UnitMark}, nil, nil)
	}
	for _, g := range slices.Sorted(maps.Keys(w.Groups)) {
		for _, u := range units {
			if w.Groups[g].Has(u) {
				m.add(map[string]string{g: u.Name}, nil, nil)
			}
		}
	}
	for _, u := range units {
		m.add(u.Spec.SetNode.Labels, u.Spec.SetNode.Annotations, u.Spec.SetNode.Taints)
		m.Unschedulable = m.Unschedulable || u.Spec.Unschedulable
	}
	if p, ok := w.Pools[node.Labels[v1beta2.LabelPool]]; ok {
		m.add(p.Spec.Labels, p.Spec.Annotations, p.Spec.Taints)
	}
	return m
}

// add adds what is not decided yet.
func (m *Marks) add(labels, annotations map[string]string, taints []corev1.Taint) {
	for k, v := range labels {
		if _, taken := m.Labels[k]; !taken && k != v1beta2.LabelPool {
			m.Labels[k] = v
		}
	}
	for k, v := range annotations {
		if _, taken := m.Annotations[k]; !taken && k != AnnotationRecord {
			m.Annotations[k] = v
		}
	}
	for _, t := range taints {
		if !slices.ContainsFunc(m.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) }) {
			m.Taints = append(m.Taints, corev1.Taint{Key: t.Key, Value: t.Value, Effect: t.Effect})
		}
	}
}

// record is the content of AnnotationRecord. A value is what was there before, null when nothing was.
type record struct {
	Labels        map[string]*string `json:"labels,omitempty"`
	Annotations   map[string]*string `json:"annotations,omitempty"`
	Taints        []taintKey         `json:"taints,omitempty"`
	Unschedulable bool               `json:"unschedulable,omitempty"`
}

type taintKey struct {
	Key    string             `json:"key"`
	Effect corev1.TaintEffect `json:"effect"`
}

// Patch is the JSON merge patch that puts marks on a node and takes off what earlier marks put there, or nil when all is so. It
// carries the resourceVersion: it is for the node as it was seen.
func Patch(node *corev1.Node, m Marks) ([]byte, error) {
	var had record
	_ = json.Unmarshal([]byte(node.Annotations[AnnotationRecord]), &had) // what cannot be read puts nothing back
	var now record
	labels := change(node.Labels, m.Labels, had.Labels, &now.Labels)
	annotations := change(node.Annotations, m.Annotations, had.Annotations, &now.Annotations)
	spec := map[string]any{}
	if taints, differ := taintsOf(node, m.Taints, had.Taints, &now); differ {
		spec["taints"] = taints
	}
	now.Unschedulable = m.Unschedulable && (had.Unschedulable || !node.Spec.Unschedulable)
	switch {
	case m.Unschedulable && !node.Spec.Unschedulable:
		spec["unschedulable"] = true
	case !m.Unschedulable && had.Unschedulable:
		spec["unschedulable"] = nil
	}
	if err := keepRecord(node, now, annotations); err != nil {
		return nil, err
	}
	if len(labels)+len(annotations)+len(spec) == 0 {
		return nil, nil
	}
	metadata := map[string]any{"resourceVersion": node.ResourceVersion}
	patch := map[string]any{"metadata": metadata}
	for name, part := range map[string]map[string]any{"labels": labels, "annotations": annotations} {
		if len(part) > 0 {
			metadata[name] = part
		}
	}
	if len(spec) > 0 {
		patch["spec"] = spec
	}
	return json.Marshal(patch)
}

// change is the merge patch of one map: what is wanted is set, and what was set and is not wanted any more goes back.
func change(live, wanted map[string]string, had map[string]*string, now *map[string]*string) map[string]any {
	out := map[string]any{}
	*now = map[string]*string{}
	for k, v := range wanted {
		before, ours := had[k]
		is, exists := live[k]
		if !ours && exists {
			if is == v {
				continue // it is so without us, and stays when the unit goes
			}
			before = &is
		}
		(*now)[k] = before
		if !exists || is != v {
			out[k] = v
		}
	}
	for k, before := range had {
		if _, still := wanted[k]; still {
			continue
		}
		if before != nil {
			out[k] = *before
		} else if _, exists := live[k]; exists {
			out[k] = nil
		}
	}
	return out
}

// taintsOf is the list of taints with those wanted and without those that were ours and are not wanted any more.
func taintsOf(node *corev1.Node, wanted []corev1.Taint, had []taintKey, now *record) ([]corev1.Taint, bool) {
	ours := func(t corev1.Taint) bool { return slices.Contains(had, taintKey{t.Key, t.Effect}) }
	want := func(t corev1.Taint) int {
		return slices.IndexFunc(wanted, func(w corev1.Taint) bool { return w.MatchTaint(&t) })
	}
	var out []corev1.Taint
	differ := false
	for _, t := range node.Spec.Taints {
		i := want(t)
		switch {
		case i < 0 && ours(t):
			differ = true
			continue
		case i >= 0 && ours(t):
			now.Taints = append(now.Taints, taintKey{t.Key, t.Effect})
			if t.Value != wanted[i].Value {
				t.Value, differ = wanted[i].Value, true
			}
		}
		out = append(out, t)
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(out, func(t corev1.Taint) bool { return t.MatchTaint(&w) }) {
			out = append(out, w)
			now.Taints = append(now.Taints, taintKey{w.Key, w.Effect})
			differ = true
		}
	}
	return out, differ
}

// keepRecord adds the record to the patch of the annotations when it changed.
func keepRecord(node *corev1.Node, now record, annotations map[string]any) error {
	text := ""
	if len(now.Labels)+len(now.Annotations)+len(now.Taints) > 0 || now.Unschedulable {
		data, err := json.Marshal(now)
		if err != nil {
			return err
		}
		text = string(data)
	}
	was, had := node.Annotations[AnnotationRecord]
	switch {
	case text == "" && had:
		annotations[AnnotationRecord] = nil
	case text != "" && text != was:
		annotations[AnnotationRecord] = text
	}
	return nil
}
