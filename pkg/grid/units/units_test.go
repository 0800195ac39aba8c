package units

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/grid/placement"
)

func node(name, zone string, ready bool) *corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": zone}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}}}
}

func TestValuesAreCountedOnce(t *testing.T) {
	x := NewIndex()
	x.Change(nil, node("1", "a", true))
	x.Change(nil, node("2", "a", false))
	x.Change(nil, node("3", "", true))
	if got := x.Units("zone"); !maps.Equal(got, map[string]placement.Unit{"a": {Nodes: 2, Ready: 1}}) {
		t.Error(got)
	}
	touched := x.Change(nil, node("2", "b", true))["zone"]
	slices.Sort(touched)
	if !slices.Equal(touched, []string{"a", "b"}) || !x.Has("zone", "b") {
		t.Error(touched)
	}
	if got := x.Change(nil, node("2", "b", true)); len(got) != 0 {
		t.Errorf("nothing changed, and %v is looked at", got)
	}
	if got := x.Change(node("1", "a", true), nil)["zone"]; !slices.Equal(got, []string{"a"}) || x.Has("zone", "a") {
		t.Error(got)
	}
	// A copy: who counts further does not change what somebody else holds.
	held := x.Units("zone")
	x.Change(nil, node("9", "c", true))
	if len(held) != 1 {
		t.Error(held)
	}
}
