package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/membership"
	"github.com/kedge-io/kedge/pkg/grid/object"
	"github.com/kedge-io/kedge/pkg/grid/report"
	"github.com/kedge-io/kedge/pkg/grid/units"
)

// syncNode puts on a node what its units and pool want, and takes off what they do not want any more.
func (e *Engine) syncNode(ctx context.Context, name string) error {
	o, exists, _ := e.store(kindNode()).GetByKey(name)
	node, _ := o.(*corev1.Node)
	var now []member
	var marks membership.Marks
	e.mu.Lock()
	if exists && node != nil {
		for _, u := range e.members.world.UnitsOf(node) {
			now = append(now, member{nodeUnits(), u.Name})
		}
		if p, ok := e.members.world.Pools[node.Labels[v1beta2.LabelPool]]; ok {
			now = append(now, member{nodePools(), p.Name})
		}
		marks = e.members.world.MarksOf(node)
	}
	touched := e.members.place(name, now)
	e.mu.Unlock()
	for _, m := range touched {
		e.queue.AddAfter(key{task: taskUnit, kind: m.kind, name: m.name}, pace(0))
	}
	if node == nil {
		return nil
	}
	patch, err := membership.Patch(node, marks)
	if err != nil || patch == nil {
		return err
	}
	_, err = e.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: object.Manager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write node %s: %w", name, err)
	}
	return nil
}

// syncMember writes the status of a unit, group or pool.
func (e *Engine) syncMember(ctx context.Context, k key) error {
	obj := e.object(k.kind, "", k.name)
	if obj == nil {
		return nil
	}
	m := member{k.kind, k.name}
	var up, down, overlaps []string
	e.mu.Lock()
	store := e.stores[kindNode()].GetIndexer()
	unit := e.members.world.Units[k.name]
	for _, name := range slices.Sorted(maps.Keys(e.members.nodes[m])) {
		o, _, _ := store.GetByKey(name)
		node, ok := o.(*corev1.Node)
		switch {
		case !ok:
			continue
		case units.Ready(node):
			up = append(up, name)
		default:
			down = append(down, name)
		}
		if k.kind == nodeUnits() && unit != nil {
			for _, o := range e.members.world.Overlaps(unit, node) {
				overlaps = append(overlaps, name+" "+o)
			}
		}
	}
	units := e.members.unitsOf(k.name)
	old := e.members.status[m]
	e.mu.Unlock()

	var now map[string]any
	switch k.kind {
	case nodeUnits():
		now = unitStatus(up, down, overlaps, obj.GetGeneration())
	case nodePools():
		now = map[string]any{"readyNodeNum": int64(len(up)), "unreadyNodeNum": int64(len(down)), "nodes": anys(slices.Sorted(slices.Values(slices.Concat(up, down))))}
	default:
		now = map[string]any{"unitNumber": int64(len(units)), "nodeUnits": anys(units)}
	}
	written, err := e.writeStatus(ctx, k, old, now)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.members.status[m] = written
	e.mu.Unlock()
	return nil
}

// unitStatus is the status of a NodeUnit.
func unitStatus(up, down, overlaps []string, generation int64) map[string]any {
	c := object.Condition("Overlapping", false, "Alone", "no other unit decides on these nodes", generation)
	if len(overlaps) > 0 {
		c = object.Condition("Overlapping", true, "OtherUnitDecides", "node, key: unit that decides: "+report.Few(overlaps), generation)
	}
	return map[string]any{
		"readyRate": fmt.Sprintf("%d/%d", len(up), len(up)+len(down)), "readyNodes": anys(up), "notReadyNodes": anys(down), "conditions": []any{c},
	}
}

// unitsOf are the units of a group, sorted.
func (m *members) unitsOf(group string) []string {
	g := m.world.Groups[group]
	var out []string
	if g == nil {
		return nil
	}
	for _, u := range m.world.Units {
		if g.Has(u) {
			out = append(out, u.Name)
		}
	}
	slices.Sort(out)
	return out
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}

// syncGroups makes the units that groups find by themselves, removes those that no node is in any more, and marks units with their groups.
func (e *Engine) syncGroups(ctx context.Context) error {
	nodes := e.allNodes()
	e.mu.Lock()
	groups := slices.SortedFunc(maps.Values(e.members.world.Groups), func(a, b *membership.Group) int { return strings.Compare(a.Name, b.Name) })
	units := maps.Clone(e.members.world.Units)
	e.mu.Unlock()
	found, hashes := map[string]bool{}, map[string]bool{}
	for _, g := range groups {
		if len(g.Spec.AutoFindNodeKeys) == 0 {
			continue
		}
		hash := membership.KeysHash(g.Spec.AutoFindNodeKeys)
		hashes[hash] = true
		for _, f := range membership.Find(g.Spec.AutoFindNodeKeys, nodes) {
			found[f.Name] = true
			if units[f.Name] == nil {
				if err := e.makeUnit(ctx, g, f, hash); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		u := units[name]
		hash := u.Labels[site.LabelAutoKeys]
		if hash != "" && (!hashes[hash] || !found[name]) {
			err := e.kinds.Resource(resourceOf(nodeUnits(), site.Version)).Delete(ctx, name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("remove unit %s: %w", name, err)
			}
			continue
		}
		if err := e.markUnit(ctx, u, groups); err != nil {
			return err
		}
	}
	for _, g := range groups {
		e.queue.AddAfter(key{task: taskUnit, kind: nodeGroups(), name: g.Name}, pace(0))
	}
	return nil
}

// makeUnit creates a unit that a group found.
func (e *Engine) makeUnit(ctx context.Context, g *membership.Group, f membership.Found, hash string) error {
	match := map[string]any{}
	for k, v := range f.Labels {
		match[k] = v
	}
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": site.Group + "/" + site.Version, "kind": site.KindNodeUnit,
		"metadata": map[string]any{"name": f.Name, "labels": map[string]any{site.LabelAutoKeys: hash, g.Name: site.GroupMark}},
		"spec":     map[string]any{"type": "edge", "selector": map[string]any{"matchLabels": match}},
	}}
	e.Use(nodeUnits())
	_, err := e.kinds.Resource(resourceOf(nodeUnits(), site.Version)).Create(ctx, obj, metav1.CreateOptions{FieldManager: object.Manager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create unit %s of group %s: %w", f.Name, g.Name, err)
	}
	return nil
}

// markUnit sets the labels that say which groups a unit is in.
func (e *Engine) markUnit(ctx context.Context, u *membership.Unit, groups []*membership.Group) error {
	labels, in := map[string]any{}, map[string]bool{}
	for _, g := range groups {
		if g.Has(u) {
			in[g.Name] = true
			if u.Labels[g.Name] != site.GroupMark {
				labels[g.Name] = site.GroupMark
			}
		}
	}
	for k, v := range u.Labels {
		if v == site.GroupMark && !in[k] {
			labels[k] = nil
		}
	}
	if len(labels) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	_, err = e.kinds.Resource(resourceOf(nodeUnits(), site.Version)).Patch(ctx, u.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: object.Manager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// members is which node is in which unit or pool. The engine's mutex guards it.
type members struct {
	world  membership.World
	of     map[string][]member        // by node
	nodes  map[member]map[string]bool // the other way round
	status map[member]map[string]any  // as last written
}

// member is a unit, group or pool.
type member struct {
	kind schema.GroupKind
	name string
}

func newMembers() members {
	return members{
		world: membership.World{Units: map[string]*membership.Unit{}, Groups: map[string]*membership.Group{}, Pools: map[string]*membership.Pool{}},
		of:    map[string][]member{}, nodes: map[member]map[string]bool{}, status: map[member]map[string]any{},
	}
}

// empty says whether nothing puts anything on nodes.
func (m *members) empty() bool {
	return len(m.world.Units)+len(m.world.Groups)+len(m.world.Pools) == 0
}

func unitSpec(o *unstructured.Unstructured) site.NodeUnitSpec {
	var s site.NodeUnitSpec
	_ = convert.Into(o.Object["spec"], &s) // the schema saw to its shape
	return s
}

func groupSpec(o *unstructured.Unstructured) site.NodeGroupSpec {
	var s site.NodeGroupSpec
	_ = convert.Into(o.Object["spec"], &s)
	return s
}

func poolSpec(o *unstructured.Unstructured) v1beta2.NodePoolSpec {
	var s v1beta2.NodePoolSpec
	_ = convert.Into(o.Object["spec"], &s)
	return s
}

// onMember is a change of a unit, group or pool: the nodes that it had or has are looked at.
func (e *Engine) onMember(gk schema.GroupKind, before, after *unstructured.Unstructured) {
	obj := after
	if obj == nil {
		obj = before
	}
	gone := after == nil || after.GetDeletionTimestamp() != nil
	name := obj.GetName()
	var old, now *membership.Unit
	e.mu.Lock()
	w := &e.members.world
	switch gk {
	case nodeUnits():
		old = w.Units[name]
		delete(w.Units, name)
		if !gone {
			now = membership.NewUnit(name, after.GetLabels(), unitSpec(after))
			w.Units[name] = now
		}
	case nodeGroups():
		delete(w.Groups, name)
		if !gone {
			w.Groups[name] = &membership.Group{Name: name, Spec: groupSpec(after)}
		}
	case nodePools():
		delete(w.Pools, name)
		if !gone {
			w.Pools[name] = &membership.Pool{Name: name, Spec: poolSpec(after)}
		}
	}
	if gone {
		delete(e.members.status, member{gk, name})
	}
	e.mu.Unlock()
	e.queue.Add(key{task: taskUnit, kind: gk, name: name})
	if gk == nodePools() {
		e.allSets(v1beta2.Group)
	} else {
		e.queue.AddAfter(key{task: taskGroups}, settle)
	}
	for _, n := range e.allNodes() {
		touched := gk == nodeGroups() || gk == nodePools() && n.Labels[v1beta2.LabelPool] == name ||
			old != nil && old.Has(n) || now != nil && now.Has(n)
		if touched {
			e.queue.AddAfter(key{task: taskNode, name: n.Name}, settle)
		}
	}
}

func (e *Engine) allNodes() []*corev1.Node {
	store := e.store(kindNode())
	if store == nil {
		return nil
	}
	var out []*corev1.Node
	for _, o := range store.List() {
		if n, ok := o.(*corev1.Node); ok {
			out = append(out, n)
		}
	}
	return out
}

// onMemberNode is a change of a node.
func (e *Engine) onMemberNode(before, after *corev1.Node) {
	e.mu.Lock()
	idle, groups := e.members.empty(), false
	for _, g := range e.members.world.Groups {
		groups = groups || len(g.Spec.AutoFindNodeKeys) > 0
	}
	e.mu.Unlock()
	if idle {
		return
	}
	n := after
	if n == nil {
		n = before
	}
	relabelled := before == nil || after == nil || !equalMaps(before.Labels, after.Labels)
	if relabelled || !equalMaps(before.Annotations, after.Annotations) || units.Ready(before) != units.Ready(after) ||
		before.Spec.Unschedulable != after.Spec.Unschedulable || !slices.Equal(before.Spec.Taints, after.Spec.Taints) {
		e.queue.AddAfter(key{task: taskNode, name: n.Name}, settle)
	}
	if relabelled && groups {
		e.queue.AddAfter(key{task: taskGroups}, settle)
	}
}

// place notes which units and pools a node is in, and returns those that it is in or was in.
func (m *members) place(node string, now []member) []member {
	was := m.of[node]
	for _, x := range was {
		delete(m.nodes[x], node)
	}
	delete(m.of, node)
	if len(now) > 0 {
		m.of[node] = now
	}
	for _, x := range now {
		if m.nodes[x] == nil {
			m.nodes[x] = map[string]bool{}
		}
		m.nodes[x][node] = true
	}
	return append(slices.Clone(was), now...)
}
