// Package filter is the seam by which parts of kedge change what the consumers of the node API read: who asks, for what kind, and what
// becomes of each object. The node API applies the chain to every answer, from its store or from the server, and to every watch; when what a filter
// knows changes, Reevaluate makes the watches send the difference.
// It is the outermost room of pkg/autonomy: every package of it, and whoever wires it, may import it.
package filter

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Asker says what kind of consumer reads.
type Asker string

// The consumers of the node API.
const (
	// Kubelet is the kubelet of this node.
	Kubelet Asker = "kubelet"
	// KubeProxy is the kube-proxy of this node.
	KubeProxy Asker = "kube-proxy"
	// Controllers are kedge's own parts: DNS, pod network, storage.
	Controllers Asker = "controllers"
	// Pod is a pod of this node, with the token of its service account.
	Pod Asker = "pod"
	// Operator is the local operator: kedge kubectl --local, and programs on the plain local port.
	Operator Asker = "operator"
)

// Request is who asks for what.
type Request struct {
	Asker Asker
	// User is the Kubernetes user name, for example system:kube-proxy.
	User string
	// Resource is what is asked for; filters usually look at its group and resource only.
	Resource schema.GroupVersionResource
}

// Filter changes objects, or hides them. Both methods are called often and at the same time: they must be quick, and must not wait.
type Filter interface {
	// Applies says whether the filter wants to see the objects of such requests. The answer for one request never changes.
	Applies(Request) bool
	// Change returns the object as the asker shall see it: obj itself, a changed copy, or nil to hide it. It must not modify obj, which is of its
	// Go type of k8s.io/api, or *unstructured.Unstructured for a kind that has none.
	Change(Request, runtime.Object) runtime.Object
}

// Func makes a Filter of two plain functions.
type Func struct {
	On func(Request) bool
	Do func(Request, runtime.Object) runtime.Object
}

// Applies implements Filter.
func (f Func) Applies(r Request) bool { return f.On(r) }

// Change implements Filter.
func (f Func) Change(r Request, obj runtime.Object) runtime.Object { return f.Do(r, obj) }

// For is the condition of most filters: these resources, read by these askers.
func For(resource schema.GroupResource, askers ...Asker) func(Request) bool {
	return func(r Request) bool {
		if r.Resource.GroupResource() != resource {
			return false
		}
		for _, a := range askers {
			if a == r.Asker {
				return true
			}
		}
		return false
	}
}

// Chain is filters in order: each sees what the one before left. The zero value and nil change nothing. It is safe for concurrent use.
type Chain struct {
	filters []Filter

	mu      sync.Mutex
	changed map[schema.GroupResource]chan struct{}
}

// NewChain makes a chain.
func NewChain(filters ...Filter) *Chain { return &Chain{filters: filters} }

// Applies says whether any filter wants to see the objects of such requests.
func (c *Chain) Applies(r Request) bool {
	if c == nil {
		return false
	}
	for _, f := range c.filters {
		if f.Applies(r) {
			return true
		}
	}
	return false
}

// Change passes an object through the chain; nil means that it is hidden.
func (c *Chain) Change(r Request, obj runtime.Object) runtime.Object {
	if c == nil {
		return obj
	}
	for _, f := range c.filters {
		if obj == nil {
			return nil
		}
		if f.Applies(r) {
			obj = f.Change(r, obj)
		}
	}
	return obj
}

// Reevaluate says that a filter would now answer differently for objects of this resource. Open watches that it applies to send what is new,
// changed or hidden since; it does not wait for them.
func (c *Chain) Reevaluate(resource schema.GroupResource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.changed[resource]; ok {
		close(ch)
		delete(c.changed, resource)
	}
}

// Changed returns a channel that is closed at the next Reevaluate of the resource.
func (c *Chain) Changed(resource schema.GroupResource) <-chan struct{} {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.changed[resource]
	if !ok {
		ch = make(chan struct{})
		if c.changed == nil {
			c.changed = map[schema.GroupResource]chan struct{}{}
		}
		c.changed[resource] = ch
	}
	return ch
}
