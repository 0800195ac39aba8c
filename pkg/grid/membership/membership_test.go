package membership

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
)

func node(name string, labels map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, ResourceVersion: "7"}}
}

func world(units ...*Unit) World {
	w := World{Units: map[string]*Unit{}, Groups: map[string]*Group{}, Pools: map[string]*Pool{}}
	for _, u := range units {
		w.Units[u.Name] = u
	}
	return w
}

func selecting(name, key, value string, set site.SetNode) *Unit {
	return NewUnit(name, nil, site.NodeUnitSpec{Selector: &site.Selector{MatchLabels: map[string]string{key: value}}, SetNode: set})
}

// apply carries out a merge patch as the API would, and fails when the node was seen at another version.
func apply(t *testing.T, n *corev1.Node, patch []byte) *corev1.Node {
	t.Helper()
	var p struct {
		Metadata struct {
			ResourceVersion     string
			Labels, Annotations map[string]*string
		}
		Spec struct {
			Taints        *[]corev1.Taint
			Unschedulable *bool
		}
	}
	if err := json.Unmarshal(patch, &p); err != nil || p.Metadata.ResourceVersion != n.ResourceVersion {
		t.Fatalf("%s: %v", patch, err)
	}
	n = n.DeepCopy()
	set := func(live map[string]string, change map[string]*string) map[string]string {
		live = maps.Clone(live)
		if live == nil {
			live = map[string]string{}
		}
		for k, v := range change {
			if v == nil {
				delete(live, k)
			} else {
				live[k] = *v
			}
		}
		return live
	}
	n.Labels, n.Annotations = set(n.Labels, p.Metadata.Labels), set(n.Annotations, p.Metadata.Annotations)
	if p.Spec.Taints != nil {
		n.Spec.Taints = *p.Spec.Taints
	}
	if strings.Contains(string(patch), `"unschedulable"`) {
		n.Spec.Unschedulable = p.Spec.Unschedulable != nil && *p.Spec.Unschedulable
	}
	return n
}

func TestMarksComeAndGo(t *testing.T) {
	u := selecting("shop", "store", "a", site.SetNode{
		Labels: map[string]string{"tier": "floor"}, Annotations: map[string]string{"note": "x"}, Taints: []corev1.Taint{{Key: "shop", Effect: "NoSchedule"}},
	})
	u.Spec.Unschedulable = true
	w := world(u)
	foreign := corev1.Taint{Key: "node.kubernetes.io/unreachable", Effect: "NoExecute"}
	before := node("n", map[string]string{"store": "a", "tier": "old"})
	before.Spec.Taints = []corev1.Taint{foreign}
	patch, err := Patch(before, w.MarksOf(before))
	if err != nil {
		t.Fatal(err)
	}
	in := apply(t, before, patch)
	if in.Labels["tier"] != "floor" || in.Labels["shop"] != site.UnitMark || in.Annotations["note"] != "x" || !in.Spec.Unschedulable ||
		len(in.Spec.Taints) != 2 || in.Spec.Taints[0] != foreign {
		t.Errorf("%+v", in)
	}
	// An annotation that is right is not written again.
	if patch, err := Patch(in, w.MarksOf(in)); patch != nil || err != nil {
		t.Errorf("%s, %v", patch, err)
	}
	in.Labels["store"] = "b"
	patch, err = Patch(in, w.MarksOf(in))
	if err != nil {
		t.Fatal(err)
	}
	out := apply(t, in, patch)
	if want := map[string]string{"store": "b", "tier": "old"}; !maps.Equal(out.Labels, want) || len(out.Annotations) != 0 ||
		!slices.Equal(out.Spec.Taints, []corev1.Taint{foreign}) || out.Spec.Unschedulable {
		t.Errorf("%+v", out)
	}
}

func TestWhatWasSoBeforeStays(t *testing.T) {
	w := world(selecting("shop", "store", "a", site.SetNode{Labels: map[string]string{"tier": "floor"}}))
	n := node("n", map[string]string{"store": "a", "tier": "floor"})
	patch, _ := Patch(n, w.MarksOf(n))
	n = apply(t, n, patch)
	patch, _ = Patch(n, World{}.MarksOf(n))
	if n = apply(t, n, patch); n.Labels["tier"] != "floor" || n.Labels["shop"] != "" {
		t.Errorf("%v", n.Labels)
	}
}

func TestPrecedence(t *testing.T) {
	a := selecting("a", "x", "y", site.SetNode{Labels: map[string]string{"k": "a", "own": "a"}, Taints: []corev1.Taint{{Key: "a", Effect: "NoSchedule"}}})
	b := selecting("b", "x", "y", site.SetNode{Labels: map[string]string{"k": "b"}, Taints: []corev1.Taint{{Key: "b", Effect: "NoSchedule"}}})
	z := NewUnit("z", nil, site.NodeUnitSpec{Nodes: []string{"n"}, SetNode: site.SetNode{Labels: map[string]string{"k": "z"}}})
	w := world(a, b, z)
	w.Groups["g"] = &Group{Name: "g", Spec: site.NodeGroupSpec{NodeUnits: []string{"a", "b"}}}
	w.Pools["p"] = &Pool{Name: "p", Spec: v1beta2.NodePoolSpec{Labels: map[string]string{"k": "p", "pool": "yes", v1beta2.LabelPool: "q"}}}
	n := node("n", map[string]string{"x": "y", v1beta2.LabelPool: "p"})
	m := w.MarksOf(n)
	want := map[string]string{"a": site.UnitMark, "b": site.UnitMark, "z": site.UnitMark, "g": "a", "k": "z", "own": "a", "pool": "yes"}
	if !maps.Equal(m.Labels, want) || len(m.Taints) != 2 {
		t.Errorf("%+v", m)
	}
	if got := w.Overlaps(b, n); !slices.Equal(got, []string{"g: a", "k: a", "k: z"}) {
		t.Error(got)
	}
	if got := w.Overlaps(z, n); got != nil {
		t.Error(got)
	}
}

func TestSelectors(t *testing.T) {
	n := node("n", map[string]string{"x": "y"})
	n.Annotations = map[string]string{"floor": "2"}
	for name, tc := range map[string]struct {
		spec site.NodeUnitSpec
		has  bool
	}{
		"nothing":          {site.NodeUnitSpec{}, false},
		"empty selector":   {site.NodeUnitSpec{Selector: &site.Selector{}}, false},
		"annotation":       {site.NodeUnitSpec{Selector: &site.Selector{Annotations: map[string]string{"floor": "2"}}}, true},
		"other annotation": {site.NodeUnitSpec{Selector: &site.Selector{MatchLabels: map[string]string{"x": "y"}, Annotations: map[string]string{"floor": "3"}}}, false},
		"list":             {site.NodeUnitSpec{Nodes: []string{"n"}}, true},
		"broken":           {site.NodeUnitSpec{Selector: &site.Selector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "x", Operator: "?"}}}}, false},
	} {
		if NewUnit("u", nil, tc.spec).Has(n) != tc.has {
			t.Error(name)
		}
	}
}

func TestFind(t *testing.T) {
	nodes := []*corev1.Node{
		node("1", map[string]string{"city": "Paris", "shop": "a"}), node("2", map[string]string{"city": "Paris", "shop": "a"}),
		node("3", map[string]string{"city": "rome", "shop": "b"}), node("4", map[string]string{"city": "rome"}),
		node("5", map[string]string{"city": strings.Repeat("x", 63), "shop": "b"}),
	}
	got := Find([]string{"shop", "city"}, nodes)
	if len(got) != 3 || !slices.ContainsFunc(got, func(f Found) bool { return f.Name == "paris-a" && f.Labels["city"] == "Paris" }) ||
		!slices.ContainsFunc(got, func(f Found) bool { return len(f.Name) == 40 }) {
		t.Errorf("%+v", got)
	}
	if Find(nil, nodes) != nil {
		t.Error("units of no key")
	}
	if KeysHash([]string{"a", "b"}) != KeysHash([]string{"b", "a"}) {
		t.Error("the order of keys makes other units")
	}
	g := &Group{Name: "g", Spec: site.NodeGroupSpec{AutoFindNodeKeys: []string{"shop", "city"}}}
	if !g.Has(NewUnit("x", map[string]string{site.LabelAutoKeys: KeysHash([]string{"city", "shop"})}, site.NodeUnitSpec{})) {
		t.Error("a group does not know what it found")
	}
}
