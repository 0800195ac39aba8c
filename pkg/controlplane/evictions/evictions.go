// Package evictions is the admission plugin that keeps the pods of a node that is out of reach: in the API server itself, so that there
// is no moment and no failure without it. It is an inner room of controlplane, which puts it into the chain.
package evictions

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	core "k8s.io/kubernetes/pkg/apis/core"

	corev1 "k8s.io/api/core/v1"
)

// Name is the plugin's, for --disable-admission-plugins.
const Name = "KedgeEvictions"

// Policy says what Kubernetes' own controllers may do about nodes that they do not hear from.
type Policy interface {
	// MayEvict says whether the node's pods may be evicted because it is out of reach.
	MayEvict(node string) bool
	// MayUnready says whether the node's pods may be declared not ready, which takes them out of Services.
	MayUnready(node string) bool
}

// controllers are who acts on nodes that are out of reach, with and without an account for each controller.
func controllers() []string {
	return []string{"system:serviceaccount:kube-system:node-controller", "system:kube-controller-manager"}
}

// plugin changes what those controllers write, and nothing else.
type plugin struct {
	*admission.Handler
	policy Policy
	users  []string
}

// New makes the plugin.
func New(policy Policy) admission.MutationInterface {
	return &plugin{Handler: admission.NewHandler(admission.Update), policy: policy, users: controllers()}
}

// Admit implements admission.MutationInterface.
func (p *plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if user := a.GetUserInfo(); user == nil || !slices.Contains(p.users, user.GetName()) {
		return nil
	}
	switch kind := a.GetResource().GroupResource(); {
	case kind == (schema.GroupResource{Resource: "nodes"}) && a.GetSubresource() == "":
		p.node(a.GetObject())
	case kind == (schema.GroupResource{Resource: "pods"}) && a.GetSubresource() == "status":
		p.status(a.GetObject(), a.GetOldObject())
	}
	return nil
}

// node takes the taint away that would evict. The one that keeps new pods off stays.
func (p *plugin) node(object runtime.Object) {
	node, ok := object.(*core.Node)
	if !ok || p.policy.MayEvict(node.Name) {
		return
	}
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t core.Taint) bool {
		return t.Key == corev1.TaintNodeUnreachable && t.Effect == core.TaintEffectNoExecute
	})
}

// status leaves a pod as ready as its kubelet last said.
func (p *plugin) status(object, old runtime.Object) {
	now, ok := object.(*core.Pod)
	before, also := old.(*core.Pod)
	if !ok || !also || ready(now) || !ready(before) || p.policy.MayUnready(now.Spec.NodeName) {
		return
	}
	now.Status = *before.Status.DeepCopy()
}

func ready(pod *core.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c core.PodCondition) bool {
		return c.Type == core.PodReady && c.Status == core.ConditionTrue
	})
}
