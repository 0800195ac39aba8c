package loadbalancer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name string, ready bool, labels map[string]string, addresses ...corev1.NodeAddress) *corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Status: corev1.NodeStatus{
			Addresses: addresses, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
		},
	}
}

func in(ip string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip}
}

func ex(ip string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip}
}

func balanced(name string, age int64, ports ...int32) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1000-age, 0))},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		},
	}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", p), Port: p, Protocol: corev1.ProtocolTCP})
	}
	return s
}

func with(s *corev1.Service, change func(*corev1.Service)) *corev1.Service {
	change(s)
	return s
}

func TestAddresses(t *testing.T) {
	two := []*corev1.Node{node("b", true, nil, in("10.0.0.2")), node("a", true, nil, in("10.0.0.1"))}
	yes, no, a := true, false, "a"
	local := func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	endpoints := func(ready *bool) []*discoveryv1.EndpointSlice {
		return []*discoveryv1.EndpointSlice{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			Endpoints:  []discoveryv1.Endpoint{{NodeName: &a, Conditions: discoveryv1.EndpointConditions{Ready: ready}}},
		}}
	}
	for _, c := range []struct {
		name   string
		change func(*corev1.Service)
		nodes  []*corev1.Node
		slices []*discoveryv1.EndpointSlice
		want   string
		keep   bool
	}{
		{name: "all ready nodes", nodes: two, want: "10.0.0.1 10.0.0.2"},
		{name: "one is not ready", nodes: []*corev1.Node{two[0], node("a", false, nil, in("10.0.0.1"))}, want: "10.0.0.2"},
		{name: "none is ready", nodes: []*corev1.Node{node("a", false, nil, in("10.0.0.1"))}, keep: true},
		{name: "external before internal", nodes: []*corev1.Node{node("a", true, nil, in("10.0.0.1"), ex("192.0.2.1"))}, want: "192.0.2.1"},
		{name: "excluded", nodes: []*corev1.Node{two[0], node("a", true, map[string]string{excludeLabel: ""}, in("10.0.0.1"))}, want: "10.0.0.2"},
		{name: "enabled", nodes: []*corev1.Node{two[0], node("a", true, map[string]string{enableLabel: "true"}, in("10.0.0.1"))}, want: "10.0.0.1"},
		{
			name: "pool", change: func(s *corev1.Service) { s.Labels = map[string]string{poolLabel: "x"} },
			nodes: []*corev1.Node{two[0], node("a", true, map[string]string{poolLabel: "x"}, in("10.0.0.1"))}, want: "10.0.0.1",
		},
		{
			name: "dual stack", change: func(s *corev1.Service) { s.Spec.IPFamilies = append(s.Spec.IPFamilies, corev1.IPv6Protocol) },
			nodes: []*corev1.Node{node("a", true, nil, in("10.0.0.1"), in("fd00::1"))}, want: "10.0.0.1 fd00::1",
		},
		{name: "local traffic", change: local, nodes: two, slices: endpoints(&yes), want: "10.0.0.1"},
		{name: "local traffic, condition unknown", change: local, nodes: two, slices: endpoints(nil), want: "10.0.0.1"},
		{name: "local traffic without endpoints", change: local, nodes: two, slices: endpoints(&no), want: ""},
	} {
		s := balanced("web", 1, 80)
		if c.change != nil {
			c.change(s)
		}
		got := assign(world{services: []*corev1.Service{s}, nodes: c.nodes, slices: c.slices})["default/web"]
		if strings.Join(got.addresses, " ") != c.want || got.keep != c.keep || got.problem != "" {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
	}
}

func TestPortsBelongToTheOldest(t *testing.T) {
	class, other := Class, "example.com/lb"
	udp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }
	got := assign(world{
		services: []*corev1.Service{
			balanced("young", 1, 443, 80), balanced("old", 9, 80), balanced("late", 0, 443),
			with(balanced("udp", 1, 80), udp), balanced("ssh", 5, 22),
			with(balanced("named", 1, 81), func(s *corev1.Service) { s.Spec.LoadBalancerClass = &class }),
			with(balanced("foreign", 99, 80), func(s *corev1.Service) { s.Spec.LoadBalancerClass = &other }),
			with(balanced("internal", 99, 80), func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }),
		},
		nodes:    []*corev1.Node{node("a", true, nil, in("10.0.0.1"))},
		reserved: []int32{22, 6443},
	})
	for name, want := range map[string]string{
		"old": "", "udp": "", "named": "",
		"young": "port 80/TCP is taken by Service default/old",
		"late":  "", // a refused Service takes no port
		"ssh":   "port 22 is used by the node itself",
	} {
		a, ok := got["default/"+name]
		if !ok || want == "" && (a.problem != "" || !slices.Equal(a.addresses, []string{"10.0.0.1"})) || !strings.Contains(a.problem, want) {
			t.Errorf("%s: %+v, want %q", name, a, want)
		}
	}
	if _, ok := got["default/foreign"]; ok {
		t.Error("a Service of another class was assigned")
	}
	if _, ok := got["default/internal"]; ok {
		t.Error("a Service of another type was assigned")
	}
}

func TestNoNodeIsAProblem(t *testing.T) {
	got := assign(world{services: []*corev1.Service{balanced("web", 1, 80)}})["default/web"]
	if got.problem == "" || got.keep || len(got.addresses) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSlimKeepsWhatDecides(t *testing.T) {
	n := node("a", true, map[string]string{poolLabel: "x"}, in("10.0.0.1"))
	n.Status.Images = []corev1.ContainerImage{{Names: []string{"large"}}}
	n.Annotations = map[string]string{"large": "x"}
	if _, err := slim(n); err != nil || n.Status.Images != nil || n.Annotations != nil || !isReady(n) || nodeAddress(n, corev1.IPv4Protocol) == "" {
		t.Errorf("%+v %v", n, err)
	}
}
