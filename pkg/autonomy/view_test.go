package autonomy

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodsAreLedHere(t *testing.T) {
	port := int32(6443)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"10.0.0.2"}}},
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
	}
	ips := []netip.Addr{netip.MustParseAddr("fd00::7"), netip.MustParseAddr("10.0.0.7")}
	out := hereInstead(slice, ips).(*discoveryv1.EndpointSlice)
	if len(out.Endpoints) != 1 || out.Endpoints[0].Addresses[0] != "10.0.0.7" || *out.Ports[0].Port != Port {
		t.Errorf("endpoints %+v, ports %+v", out.Endpoints, out.Ports)
	}
	if len(slice.Endpoints) != 2 || *slice.Ports[0].Port != 6443 {
		t.Error("the original was changed")
	}
	if got := hereInstead(slice, ips[:1]); got != slice {
		t.Error("a family that the node does not have was rewritten")
	}
	other := slice.DeepCopy()
	other.Namespace = "shop"
	if hereInstead(other, ips) != other || hereInstead(&corev1.Pod{}, ips) == nil {
		t.Error("another object was rewritten")
	}
}

func TestPodsTrustTheNode(t *testing.T) {
	const cluster, node = "-----cluster-----\n", "-----node-----\n"
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": cluster}}
	if got := trustInConfigMap(m, []byte(node)).(*corev1.ConfigMap).Data["ca.crt"]; got != cluster+node || m.Data["ca.crt"] != cluster {
		t.Errorf("bundle %q, original %q", got, m.Data["ca.crt"])
	}
	m.Name = "settings"
	if trustInConfigMap(m, []byte(node)) != m {
		t.Error("another ConfigMap was changed")
	}
	s := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"ca.crt": []byte(strings.TrimSpace(cluster))}}
	if got := string(trustInSecret(s, []byte(node)).(*corev1.Secret).Data["ca.crt"]); got != cluster+node {
		t.Errorf("bundle %q", got)
	}
	s.Type = corev1.SecretTypeOpaque
	if trustInSecret(s, []byte(node)) != s {
		t.Error("another Secret was changed")
	}
}
