package evictions

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	core "k8s.io/kubernetes/pkg/apis/core"
)

// allow is a policy by name of node.
type allow map[string]bool

func (a allow) MayEvict(node string) bool   { return a[node] }
func (a allow) MayUnready(node string) bool { return a[node] }

func admit(t *testing.T, who, resource, sub string, object, old runtime.Object) {
	t.Helper()
	made := New(allow{"dead": true})
	if !made.Handles(admission.Update) || made.Handles(admission.Delete) {
		t.Error("wrong operations")
	}
	attributes := admission.NewAttributesRecord(object, old, core.SchemeGroupVersion.WithKind("X"), "", "x",
		core.SchemeGroupVersion.WithResource(resource).GroupResource().WithVersion("v1"), sub, admission.Update, nil, false, &user.DefaultInfo{Name: who})
	if err := made.Admit(t.Context(), attributes, nil); err != nil {
		t.Error(err)
	}
}

func taints(n *core.Node) (out string) {
	for _, taint := range n.Spec.Taints {
		out += taint.Key + ":" + string(taint.Effect) + " "
	}
	return out
}

func TestTaints(t *testing.T) {
	const unreachable, other = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
	const all = unreachable + ":NoSchedule " + unreachable + ":NoExecute " + other + ":NoExecute "
	const kept = unreachable + ":NoSchedule " + other + ":NoExecute "
	for _, tc := range []struct{ who, node, sub, want string }{
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "", kept},
		{"system:kube-controller-manager", "cut-off", "", kept},
		{"system:serviceaccount:kube-system:node-controller", "dead", "", all},
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "status", all},
		{"system:admin", "cut-off", "", all},
	} {
		n := &core.Node{ObjectMeta: metav1.ObjectMeta{Name: tc.node}, Spec: core.NodeSpec{Taints: []core.Taint{
			{Key: unreachable, Effect: core.TaintEffectNoSchedule}, {Key: unreachable, Effect: core.TaintEffectNoExecute},
			{Key: other, Effect: core.TaintEffectNoExecute},
		}}}
		admit(t, tc.who, "nodes", tc.sub, n, nil)
		if taints(n) != tc.want {
			t.Errorf("%+v: %s", tc, taints(n))
		}
	}
}

func TestReadiness(t *testing.T) {
	pod := func(node string, ready core.ConditionStatus) *core.Pod {
		return &core.Pod{Spec: core.PodSpec{NodeName: node}, Status: core.PodStatus{Conditions: []core.PodCondition{{Type: core.PodReady, Status: ready}}}}
	}
	for _, tc := range []struct {
		who, node, sub string
		before, wrote  core.ConditionStatus
		want           core.ConditionStatus
	}{
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "status", core.ConditionTrue, core.ConditionFalse, core.ConditionTrue},
		{"system:serviceaccount:kube-system:node-controller", "dead", "status", core.ConditionTrue, core.ConditionFalse, core.ConditionFalse},
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "", core.ConditionTrue, core.ConditionFalse, core.ConditionFalse},
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "status", core.ConditionFalse, core.ConditionTrue, core.ConditionTrue},
		{"system:serviceaccount:kube-system:node-controller", "cut-off", "status", core.ConditionFalse, core.ConditionFalse, core.ConditionFalse},
		{"system:node:cut-off", "cut-off", "status", core.ConditionTrue, core.ConditionFalse, core.ConditionFalse},
	} {
		now := pod(tc.node, tc.wrote)
		admit(t, tc.who, "pods", tc.sub, now, pod(tc.node, tc.before))
		if got := now.Status.Conditions[0].Status; got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}
