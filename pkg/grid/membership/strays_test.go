package membership

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStrays(t *testing.T) {
	yes := true
	made := []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", Controller: &yes}}
	pod := func(owner []metav1.OwnerReference, label, unit, key, value string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{OwnerReferences: owner, Labels: map[string]string{label: unit}},
			Spec:       corev1.PodSpec{NodeSelector: map[string]string{key: value, "disk": "ssd"}},
		}
	}
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		labels map[string]string
		want   bool
	}{
		"in its unit":             {pod(made, "grid.kedge.io/unit", "a", "zone", "a"), map[string]string{"zone": "a"}, false},
		"the node moved":          {pod(made, "grid.kedge.io/unit", "a", "zone", "a"), map[string]string{"zone": "b"}, true},
		"the node has no unit":    {pod(made, "grid.kedge.io/unit", "a", "zone", "a"), nil, true},
		"a pool":                  {pod(made, "apps.openyurt.io/pool-name", "a", "apps.openyurt.io/nodepool", "a"), nil, true},
		"a key that no grid has":  {pod(made, "grid.kedge.io/unit", "a", "rack", "a"), nil, false},
		"another label changed":   {pod(made, "grid.kedge.io/unit", "a", "zone", "a"), map[string]string{"zone": "a", "disk": "hdd"}, false},
		"nobody would make again": {pod(nil, "grid.kedge.io/unit", "a", "zone", "a"), nil, false},
		"somebody else's pod":     {pod(made, "app", "a", "zone", "a"), nil, false},
	} {
		if got := Stray(c.pod, c.labels, []string{"zone", "apps.openyurt.io/nodepool"}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
