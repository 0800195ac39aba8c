package traffic

import (
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shops are the nodes of this test: two in unit a, one in b, one that belongs nowhere.
func shops() map[string]map[string]string {
	return map[string]map[string]string{
		"a1": {"zone": "a", "apps.openyurt.io/nodepool": "p"}, "a2": {"zone": "a"}, "b1": {"zone": "b", "apps.openyurt.io/nodepool": "p"}, "x": {},
	}
}

func on(name string) Node {
	return Node{Name: name, Labels: shops()[name], LabelsOf: func(n string) (map[string]string, bool) {
		l, ok := shops()[n]
		return l, ok
	}}
}

// slice has an endpoint on each named node; an endpoint's host name follows a colon.
func slice(nodes ...[2]string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "web-svc-other-x7f2q", Labels: map[string]string{discoveryv1.LabelServiceName: "web-svc"}}}
	for _, n := range nodes {
		e := discoveryv1.Endpoint{Addresses: []string{"10.0.0." + n[0]}}
		if n[0] != "" {
			e.NodeName = &n[0]
		}
		if n[1] != "" {
			e.Hostname = &n[1]
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func where(s *discoveryv1.EndpointSlice) (nodes, hosts []string) {
	for _, e := range s.Endpoints {
		if e.NodeName != nil {
			nodes = append(nodes, *e.NodeName)
		}
		if e.Hostname != nil {
			hosts = append(hosts, *e.Hostname)
		}
	}
	return nodes, hosts
}

func TestClose(t *testing.T) {
	all := slice([2]string{"a1"}, [2]string{"a2"}, [2]string{"b1"}, [2]string{"x"}, [2]string{"gone"}, [2]string{""})
	for name, tc := range map[string]struct {
		node        string
		annotations map[string]string
		want        []string
	}{
		"own unit":            {"a1", map[string]string{"topologyKeys": `["zone"]`}, []string{"a1", "a2"}},
		"other unit":          {"b1", map[string]string{"topologyKeys": `["zone"]`}, []string{"b1"}},
		"no unit":             {"x", map[string]string{"topologyKeys": `["zone"]`}, []string{"x"}},
		"any of the keys":     {"a1", map[string]string{"topologyKeys": `["rack","zone"]`}, []string{"a1", "a2"}},
		"anywhere":            {"a1", map[string]string{"topologyKeys": `["*"]`}, []string{"a1", "a2", "b1", "x", "gone"}},
		"open":                {"a1", map[string]string{"topologyKeys": `[]`}, []string{"a1", "a2", "b1", "x", "gone"}},
		"no annotation":       {"a1", nil, []string{"a1", "a2", "b1", "x", "gone"}},
		"OpenYurt's pool":     {"a1", map[string]string{"openyurt.io/topologyKeys": "openyurt.io/nodepool"}, []string{"a1", "b1"}},
		"OpenYurt's old pool": {"b1", map[string]string{"openyurt.io/topologyKeys": "kubernetes.io/zone"}, []string{"a1", "b1"}},
		"OpenYurt's host":     {"a2", map[string]string{"openyurt.io/topologyKeys": "kubernetes.io/hostname"}, []string{"a2"}},
	} {
		if got, _ := where(Close(all, tc.annotations, on(tc.node))); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if len(all.Endpoints) != 6 {
		t.Error("the original changed")
	}
	if Close(all, nil, on("a1")) != all {
		t.Error("a slice that stays as it is was copied")
	}
	if got, _ := where(Close(slice([2]string{"b1"}), map[string]string{"topologyKeys": `["zone"]`}, on("a1"))); got != nil {
		t.Errorf("a unit without endpoints leaks to %v", got)
	}
}

func TestServiceOfIsNotCutOutOfTheName(t *testing.T) {
	if got := ServiceOf(slice()); got != "web-svc" {
		t.Error(got)
	}
}

func TestNamesOfStatefulSetGrids(t *testing.T) {
	both := slice([2]string{"a1", "echo-a-0"}, [2]string{"b1", "echo-b-0"}, [2]string{"a2", "echo-a-x"}, [2]string{"a2", "other-echo-a-1"})
	annotations := map[string]string{AnnotationNames: `{"echo":"zone"}`, "topologyKeys": `["zone"]`}
	if _, got := where(Close(both, annotations, on("a2"))); !slices.Equal(got, []string{"echo-a-0", "echo-0", "echo-a-x", "other-echo-a-1"}) {
		t.Error(got)
	}
	if _, got := where(Close(both, annotations, on("b1"))); !slices.Equal(got, []string{"echo-b-0", "echo-0"}) {
		t.Error(got)
	}
	// Open traffic keeps every pod's own name, and the common name is still the own unit's.
	delete(annotations, "topologyKeys")
	if _, got := where(Close(both, annotations, on("b1"))); !slices.Equal(got, []string{"echo-a-0", "echo-b-0", "echo-0", "echo-a-x", "other-echo-a-1"}) {
		t.Error(got)
	}
	// A unit whose name is part of another's, and a grid whose name ends like a unit: only whole names count.
	annotations[AnnotationNames] = `{"a":"zone","echo-a":"zone"}`
	if _, got := where(Close(slice([2]string{"a1", "echo-a-a-0"}), annotations, on("a1"))); !slices.Equal(got, []string{"echo-a-a-0", "echo-a-0"}) {
		t.Error(got)
	}
}
