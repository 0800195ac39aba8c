// Package units counts nodes by the values of the labels that grids use. Rooms of pkg/grid may import it.
package units

import (
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// Index counts nodes by the values of labels. A value that many nodes have is one unit.
type Index struct {
	mu    sync.Mutex
	nodes map[string]*corev1.Node
	keys  map[string]map[string]placement.Unit
}

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{nodes: map[string]*corev1.Node{}, keys: map[string]map[string]placement.Unit{}}
}

// counted are the units of a key; the first time all nodes are counted.
func (x *Index) counted(key string) map[string]placement.Unit {
	counted, ok := x.keys[key]
	if !ok {
		counted = map[string]placement.Unit{}
		x.keys[key] = counted
		for _, n := range x.nodes {
			count(counted, key, n, 1)
		}
	}
	return counted
}

// Some returns those of the units that have a node, and how many units the key has in all.
func (x *Index) Some(key string, units []string) (map[string]placement.Unit, int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	counted, out := x.counted(key), map[string]placement.Unit{}
	for _, unit := range units {
		if u, ok := counted[unit]; ok {
			out[unit] = u
		}
	}
	return out, len(counted)
}

// Units returns a copy of the units of a key.
func (x *Index) Units(key string) map[string]placement.Unit {
	x.mu.Lock()
	defer x.mu.Unlock()
	counted := x.counted(key)
	out := make(map[string]placement.Unit, len(counted))
	for k, v := range counted {
		out[k] = v
	}
	return out
}

// Change takes note of a node before and after a change, and returns the units that it touches: key to values.
func (x *Index) Change(old, now *corev1.Node) map[string][]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now != nil {
		old = x.nodes[now.Name] // what was counted
		x.nodes[now.Name] = now
	} else if old != nil {
		old = x.nodes[old.Name]
		if old != nil {
			delete(x.nodes, old.Name)
		}
	}
	touched := map[string][]string{}
	for key, counted := range x.keys {
		before, after := value(old, key), value(now, key)
		if before == after && Ready(old) == Ready(now) {
			continue
		}
		count(counted, key, old, -1)
		count(counted, key, now, 1)
		for _, v := range []string{before, after} {
			if v != "" {
				touched[key] = append(touched[key], v)
			}
		}
	}
	return touched
}

// Has says whether a node has the value.
func (x *Index) Has(key, v string) bool {
	some, _ := x.Some(key, []string{v})
	return some[v].Nodes > 0
}

func count(counted map[string]placement.Unit, key string, n *corev1.Node, by int) {
	v := value(n, key)
	if v == "" {
		return
	}
	u := counted[v]
	u.Nodes += by
	if Ready(n) {
		u.Ready += by
	}
	if u.Nodes > 0 {
		counted[v] = u
	} else {
		delete(counted, v)
	}
}

// value is the value of a node's label; a node that is going away has none.
func value(n *corev1.Node, key string) string {
	if n == nil {
		return ""
	}
	return n.Labels[key]
}

// Ready says whether a node is ready; none is not.
func Ready(n *corev1.Node) bool {
	if n == nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
