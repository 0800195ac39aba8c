package peers

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func example() Peer {
	return Peer{
		Node: "edge1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.3.0/24"), netip.MustParsePrefix("fd42:3::/64")}, Backend: VXLAN,
		PublicIP: netip.MustParseAddr("10.0.0.7"), Data: []byte(`{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`),
	}
}

func nodeOf(p Peer) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: p.Node, Annotations: p.Annotations()}}
	for _, c := range p.CIDRs {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, c.String())
	}
	return n
}

func TestAnnouncementsComeThrough(t *testing.T) {
	dual, wire, plain := example(), example(), example()
	dual.PublicIPv6, dual.DataV6 = netip.MustParseAddr("fd00::7"), []byte(`{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e4"}`)
	wire.Backend, wire.Data = WireGuard, []byte(`{"PublicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Port":51820}`)
	plain.Backend, plain.Data = HostGW, nil
	for _, p := range []Peer{example(), dual, wire, plain} {
		got, err := fromNode(nodeOf(p))
		if err != nil || !got.Equal(p) {
			t.Errorf("%+v became %+v, %v", p, got, err)
			continue
		}
		got.Seen = netip.MustParseAddr("203.0.113.3")
		m, err := got.ConfigMap()
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := FromConfigMap(m); !ok || !back.Equal(got) {
			t.Errorf("%+v became %+v", got, back)
		}
	}
}

func TestNothingOfANodeIsTrusted(t *testing.T) {
	for name, spoil := range map[string]func(map[string]string){
		"backend":      func(a map[string]string) { a[annotationBackend] = "extension" },
		"address":      func(a map[string]string) { a[annotationPublic] = "10.0.0.7; reboot" },
		"loopback":     func(a map[string]string) { a[annotationPublic] = "127.0.0.1" },
		"family":       func(a map[string]string) { a[annotationPublic] = "fd00::1" },
		"no address":   func(a map[string]string) { delete(a, annotationPublic) },
		"no data":      func(a map[string]string) { a[annotationData] = "null" },
		"group":        func(a map[string]string) { a[annotationData] = `{"VNI":1,"VtepMAC":"01:00:00:00:00:01"}` },
		"long address": func(a map[string]string) { a[annotationData] = `{"VNI":1,"VtepMAC":"00:00:00:00:00:01:02:03"}` },
		"huge":         func(a map[string]string) { a[annotationData] = `{"VNI":1,"x":"` + strings.Repeat("x", 600) + `"}` },
		"text":         func(a map[string]string) { a[annotationData] = "nonsense" },
	} {
		n := nodeOf(example())
		spoil(n.Annotations)
		if p, err := fromNode(n); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	n := nodeOf(example())
	n.Annotations[annotationData] = `{"VNI":1,"VtepMAC":"12:C6:65:89:B4:E3","PostStartupCommand":"reboot"}`
	if p, err := fromNode(n); err != nil || !p.Equal(example()) {
		t.Errorf("what does not belong there came through: %s, %v", p.Data, err)
	}
	n.Spec.PodCIDRs = []string{"10.42.3.0/24", "10.42.4.0/24"}
	if p, err := fromNode(n); err == nil {
		t.Errorf("%+v", p)
	}
}

func TestEntriesOfOthersAreIgnored(t *testing.T) {
	m, err := example().ConfigMap()
	if err != nil {
		t.Fatal(err)
	}
	m.Name = "kube-root-ca.crt"
	if _, ok := FromConfigMap(m); ok {
		t.Error("an entry under another name was taken")
	}
	if _, ok := FromConfigMap(&corev1.ConfigMap{}); ok {
		t.Error("an empty ConfigMap was taken")
	}
}

func TestPlan(t *testing.T) {
	a, b, moved := example(), example(), example()
	b.Node, moved.PublicIP = "edge2", netip.MustParseAddr("10.0.0.9")
	put, remove := plan([]Peer{moved, b}, map[string]Peer{"edge1": a, "edge2": b, "gone": {}})
	if len(put) != 1 || put[0].Node != "edge1" || len(remove) != 1 || remove[0] != "gone" {
		t.Errorf("write %v, remove %v", put, remove)
	}
}

func TestBeside(t *testing.T) {
	open, behind, neighbour := example(), example(), example()
	behind.Seen = netip.MustParseAddr("203.0.113.3")
	neighbour.Seen = behind.Seen
	if open.Beside(behind) || !behind.Beside(neighbour) || !open.Beside(open) {
		t.Error("who reaches whom is wrong")
	}
}
