package policy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
	"github.com/kedge-io/kedge/test/lab/netns"
)

// node is a bridge with pods on it, as the CNI plugin makes them.
type node struct {
	*testing.T
	ns   *netns.Namespace
	pods map[string]*netns.Namespace // by the last part of their addresses
}

func newNode(t *testing.T, ns *netns.Namespace, pods ...string) *node {
	t.Helper()
	n := &node{T: t, ns: ns, pods: map[string]*netns.Namespace{}}
	must := func(errs ...error) {
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(ns.Sysctl("ipv6/conf/default/accept_dad", "0"), ns.Bridge("cni0"), ns.Address("cni0", "fd42::1/64"), ns.Address("cni0", "10.42.0.1/24"))
	for _, name := range pods {
		pod, err := netns.New()
		must(err)
		t.Cleanup(pod.Close)
		n.pods[name] = pod
		must(pod.Sysctl("ipv6/conf/default/accept_dad", "0"), ns.Veth("veth"+name, pod, "eth0"), ns.Bridge("cni0", "veth"+name),
			pod.Address("eth0", "fd42::"+name+"/64"), pod.Address("eth0", "10.42.0."+name+"/24"), pod.SetUp("lo", true))
		n.serve(pod)
	}
	return n
}

// serve listens on two ports of a pod.
func (n *node) serve(pod *netns.Namespace) {
	n.Helper()
	for _, port := range []string{"8080", "8081"} {
		var l net.Listener
		in(n.T, pod, func() (err error) {
			l, err = net.Listen("tcp", ":"+port)
			return err
		})
		n.Cleanup(func() { _ = l.Close() })
	}
}

// reaches says whether a connection opens.
func (n *node) reaches(from *netns.Namespace, address string) bool {
	return from.Do(func() error {
		c, err := net.DialTimeout("tcp", address, 400*time.Millisecond)
		if err == nil {
			_ = c.Close()
		}
		return err
	}) == nil
}

// TestPackets sends packets of both families over a bridge, under a policy for the pod 2: from the pod 3, to port 8080.
func TestPackets(t *testing.T) {
	ns, nft := kernel(t)
	n := newNode(t, ns, "2", "3", "4")
	in(t, ns, func() error {
		if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
			t.Skip("needs br_netfilter: ", err)
		}
		return seeBridge("cni0")
	})
	input := compile.Input{Node: "n", Bridge: "cni0", Namespaces: map[string]map[string]string{"x": {}}}
	for name := range n.pods {
		input.Pods = append(input.Pods, compile.Pod{Namespace: "x", Name: name, Node: "n", Labels: map[string]string{"pod": name}, Ports: []compile.Port{{Name: "web", Protocol: "TCP", Number: 8080}},
			IPs: []netip.Addr{netip.MustParseAddr("fd42::" + name), netip.MustParseAddr("10.42.0." + name)}})
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"}}
	policy.Spec.PodSelector.MatchLabels = map[string]string{"pod": "2"}
	rule := networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pod": "3"}}}}}
	rule.Ports = make([]networkingv1.NetworkPolicyPort, 1)
	rule.Ports[0].Port = named("web")
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{rule}
	input.Policies = []*networkingv1.NetworkPolicy{policy}
	k := &table{nft: nft, file: filepath.Join(t.TempDir(), "saved.nft")}
	in(t, ns, func() error { return k.apply(t.Context(), compile.Table(input)) })

	for _, network := range []string{"[fd42::%s]:%d", "10.42.0.%s:%d"} {
		for _, from := range []string{"2", "3", "4"} {
			for _, to := range []string{"2", "3", "4"} {
				for _, port := range []int{8080, 8081} {
					want := to != "2" || from == "2" || from == "3" && port == 8080
					if address := fmt.Sprintf(network, to, port); n.reaches(n.pods[from], address) != want {
						t.Errorf("%s reaches %s: %v", from, address, !want)
					}
				}
			}
		}
		if address := fmt.Sprintf(network, "2", 8081); !n.reaches(ns, address) {
			t.Errorf("the node does not reach its own pod at %s", address)
		}
	}
	// An address that nobody was given: nothing goes in or out.
	for _, cidr := range []string{"fd42::9/128", "10.42.0.9/32"} {
		if err := n.pods["4"].Address("lo", cidr); err != nil {
			t.Fatal(err)
		}
	}
	if n.reaches(n.pods["3"], "[fd42::9]:8080") || n.reaches(n.pods["3"], "10.42.0.9:8080") {
		t.Error("an unknown address answers")
	}
}

func named(port string) *intstr.IntOrString {
	p := intstr.FromString(port)
	return &p
}
