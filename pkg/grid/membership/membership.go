// Package membership decides which units a node belongs to and what they put on it: pure, (node, units, groups, pools) in, marks and a
// patch out. Rooms of pkg/grid may import it.
package membership

import (
	"crypto/sha1"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
)

// Unit is a NodeUnit, made ready for many questions.
type Unit struct {
	Name   string
	Labels map[string]string
	Spec   site.NodeUnitSpec
	chosen labels.Selector
}

// NewUnit prepares a NodeUnit. A selector that cannot be read chooses nothing.
func NewUnit(name string, marked map[string]string, spec site.NodeUnitSpec) *Unit {
	return &Unit{Name: name, Labels: marked, Spec: spec, chosen: selectorOf(spec.Selector)}
}

func selectorOf(s *site.Selector) labels.Selector {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions)+len(s.Annotations) == 0 {
		return labels.Nothing()
	}
	out, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchLabels: s.MatchLabels, MatchExpressions: s.MatchExpressions})
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// named says whether the unit lists the node.
func (u *Unit) named(node *corev1.Node) bool { return slices.Contains(u.Spec.Nodes, node.Name) }

// Has says whether the node belongs to the unit: it is listed, or it has the labels and annotations.
func (u *Unit) Has(node *corev1.Node) bool {
	return u.named(node) || matches(u.chosen, u.Spec.Selector, node.Labels, node.Annotations)
}

func matches(chosen labels.Selector, s *site.Selector, marked, annotated map[string]string) bool {
	if s == nil || !chosen.Matches(labels.Set(marked)) {
		return false
	}
	for k, v := range s.Annotations {
		if got, ok := annotated[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Group is a NodeGroup.
type Group struct {
	Name string
	Spec site.NodeGroupSpec
}

// Has says whether a unit belongs to the group: it is listed, selected, or was found by the group.
func (g *Group) Has(u *Unit) bool {
	return slices.Contains(g.Spec.NodeUnits, u.Name) || matches(selectorOf(g.Spec.Selector), g.Spec.Selector, u.Labels, nil) ||
		u.Labels[site.LabelAutoKeys] != "" && len(g.Spec.AutoFindNodeKeys) > 0 && u.Labels[site.LabelAutoKeys] == KeysHash(g.Spec.AutoFindNodeKeys)
}

// KeysHash is the mark of units that were found by these keys, in any order.
func KeysHash(keys []string) string {
	sorted := slices.Sorted(slices.Values(keys))
	sum := sha1.Sum([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:])[:16]
}

// maxUnitName is the longest name that can also be the name of a label.
const maxUnitName = 63

// Found is a unit that a group finds by itself: all nodes with these values of the keys.
type Found struct {
	Name   string
	Labels map[string]string // that its nodes have
}

// Find lists the units of nodes by the values of keys, sorted by name. The name is the values, in the order of the keys sorted,
// joined by "-"; one that is too long is a hash. A node without one of the keys is in none.
func Find(keys []string, nodes []*corev1.Node) []Found {
	sorted := slices.Compact(slices.Sorted(slices.Values(keys)))
	found := map[string]Found{}
	for _, n := range nodes {
		values, have := make([]string, len(sorted)), map[string]string{}
		whole := len(sorted) > 0
		for i, k := range sorted {
			values[i] = n.Labels[k]
			have[k] = values[i]
			whole = whole && values[i] != ""
		}
		if !whole {
			continue
		}
		name := strings.ToLower(strings.Join(values, "-"))
		if len(name) > maxUnitName || strings.ContainsAny(name, "/_") {
			sum := sha1.Sum([]byte(strings.Join(values, "\n")))
			name = hex.EncodeToString(sum[:])
		}
		found[name] = Found{Name: name, Labels: have}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
}

// Pool is a NodePool.
type Pool struct {
	Name string
	Spec v1beta2.NodePoolSpec
}

// World is all that puts something on nodes.
type World struct {
	Units  map[string]*Unit
	Groups map[string]*Group
	Pools  map[string]*Pool
}

// UnitsOf are the units that a node belongs to, those that decide first in front: a unit that lists the node goes before one that
// selects it, and among those the name decides.
func (w World) UnitsOf(node *corev1.Node) []*Unit {
	var out []*Unit
	for _, u := range w.Units {
		if u.Has(node) {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b *Unit) int {
		if x, y := a.named(node), b.named(node); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// Overlaps says, for a unit, which of its labels or groups on a node another unit decides: "key: unit". Nothing when it decides all.
func (w World) Overlaps(u *Unit, node *corev1.Node) []string {
	var out []string
	before := true
	for _, other := range w.UnitsOf(node) {
		if other == u {
			before = false
		}
		if !before {
			break
		}
		for k, v := range u.Spec.SetNode.Labels {
			if theirs, ok := other.Spec.SetNode.Labels[k]; ok && theirs != v {
				out = append(out, k+": "+other.Name)
			}
		}
		for _, g := range w.Groups {
			if g.Has(u) && g.Has(other) {
				out = append(out, g.Name+": "+other.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
