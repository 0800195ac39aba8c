package object

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type m = map[string]any

func TestContains(t *testing.T) {
	live := m{"a": int64(1), "filled": "in", "list": []any{m{"name": "c", "defaulted": true}}, "empty": m{}}
	for _, wanted := range []m{{}, {"a": int64(1)}, {"list": []any{m{"name": "c"}}}, {"gone": m{}}, {"none": []any{}}} {
		if !Contains(live, wanted) {
			t.Errorf("%v is not found", wanted)
		}
	}
	for _, wanted := range []m{{"a": int64(2)}, {"list": []any{}}, {"list": []any{m{"name": "d"}}}, {"b": "x"}, {"filled": m{"x": "y"}}} {
		if Contains(live, wanted) {
			t.Errorf("%v is found", wanted)
		}
	}
}

func TestMergeKeepsWhatIsNotOurs(t *testing.T) {
	live := &unstructured.Unstructured{Object: m{"kind": "Deployment", "metadata": m{"name": "d", "resourceVersion": "7", "labels": m{"theirs": "x"}},
		"spec": m{"replicas": int64(5), "old": true}, "status": m{"x": "y"}}}
	wanted := &unstructured.Unstructured{Object: m{"metadata": m{"labels": m{"ours": "y"}}, "spec": m{"new": true}}}
	got := merge(live, wanted)
	if got.GetResourceVersion() != "7" || !reflect.DeepEqual(got.Object["spec"], m{"new": true, "replicas": int64(5)}) || got.GetLabels()["theirs"] != "x" || got.GetLabels()["ours"] != "y" {
		t.Errorf("%v", got.Object)
	}
	if _, has := wanted.Object["spec"].(m)["replicas"]; has {
		t.Error("the template changed")
	}
	service := &unstructured.Unstructured{Object: m{"kind": "Service", "metadata": m{}, "spec": m{"clusterIP": "10.0.0.1", "ports": []any{m{"port": int64(80), "nodePort": int64(30001), "protocol": "TCP"}}}}}
	wanted = &unstructured.Unstructured{Object: m{"metadata": m{}, "spec": m{"type": "NodePort", "ports": []any{m{"port": int64(80)}}}}}
	got = merge(service, wanted)
	ports, _, _ := unstructured.NestedSlice(got.Object, "spec", "ports")
	if ip, _, _ := unstructured.NestedString(got.Object, "spec", "clusterIP"); ip != "10.0.0.1" || ports[0].(m)["nodePort"] != int64(30001) {
		t.Errorf("%v", got.Object)
	}
}

func TestStatusIsWrittenAsADifference(t *testing.T) {
	old := m{"units": int64(2), "states": m{"a": m{"replicas": int64(1)}, "b": m{}, "gone": m{}}, "conditions": []any{Condition("Ready", true, "R", "m", 1)}}
	old["conditions"].([]any)[0].(m)["lastTransitionTime"] = "then"
	now := m{"units": int64(2), "states": m{"a": m{"replicas": int64(2)}, "b": m{}}, "conditions": []any{Condition("Ready", true, "R", "m", 1)}}
	KeepTimes(old, now)
	if got, want := MergeDiff(old, now), (m{"states": m{"a": m{"replicas": int64(2)}, "gone": nil}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	now["conditions"] = []any{Condition("Ready", false, "R", "m", 1)}
	KeepTimes(old, now)
	if got := MergeDiff(old, now)["conditions"].([]any)[0].(m); got["lastTransitionTime"] == "then" {
		t.Error("a condition that changed has the old time")
	}
}
