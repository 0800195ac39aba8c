package compile

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/kedge-io/kedge/test/golden"
)

func addrs(in ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// world is two namespaces of pods: shop on this node, farm partly.
func world() Input {
	return Input{
		Node: "n1", DNS: addrs("10.43.0.10"), Bridge: "cni0",
		Namespaces: map[string]map[string]string{"shop": {"kind": "inside"}, "farm": {"kind": "outside"}, "kube-system": {"kubernetes.io/metadata.name": "kube-system"}},
		Pods: []Pod{
			{Namespace: "shop", Name: "web", UIDs: []string{"u1"}, Labels: map[string]string{"app": "web"}, Node: "n1", IPs: addrs("10.42.0.2", "fd42::2"),
				Ports: []Port{{"http", "TCP", 8080}, {"metrics", "", 9090}}},
			{Namespace: "shop", Name: "db", UIDs: []string{"u2"}, Labels: map[string]string{"app": "db"}, Node: "n2", IPs: addrs("10.42.1.2"), Ports: []Port{{"http", "TCP", 80}}},
			{Namespace: "farm", Name: "cow", UIDs: []string{"u3"}, Labels: map[string]string{"app": "cow"}, Node: "n1", IPs: addrs("10.42.0.3")},
			{Namespace: "farm", Name: "new", UIDs: []string{"u4"}, Labels: map[string]string{"app": "pig"}, Node: "n1"},
		},
		Reservations: []Reservation{
			{"shop", "web", "u1", addrs("10.42.0.2", "fd42::2")},
			{"farm", "new", "u4", addrs("10.42.0.4")},
			{"shop", "unseen", "u5", addrs("10.42.0.5")},
			{"farm", "unseen", "u6", addrs("10.42.0.6")},
			{"", "", "", addrs("10.42.0.7")},
		},
	}
}

func policy(t *testing.T, namespace, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	p := &networkingv1.NetworkPolicy{}
	p.Namespace, p.Name = namespace, "p"
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTableGolden(t *testing.T) {
	in := world()
	spec, err := os.ReadFile(filepath.Join("testdata", "everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", string(spec)), policy(t, "farm", "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}")}
	table := Table(in)
	golden.Check(t, "everything.nft", table.Create())
	if again := Table(in).From(table); again != "" {
		t.Errorf("the same input gave another table: %s", again)
	}
}

func TestOnlyElementsChangeWithPods(t *testing.T) {
	in := world()
	in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}")}
	before := Table(in)
	in.Pods = append(in.Pods, Pod{Namespace: "shop", Name: "db2", UIDs: []string{"u9"}, Labels: map[string]string{"app": "db"}, Node: "n2", IPs: addrs("10.42.1.9")})
	script := Table(in).From(before)
	if strings.Count(script, "\n") != 1 || !strings.Contains(script, "add element inet kedge-policy peers-") || !strings.Contains(script, "{ 10.42.1.9 }") {
		t.Errorf("a new pod elsewhere changes more than a set:\n%s", script)
	}
}

// TestRules looks at the rules of one policy of the namespace shop.
func TestRules(t *testing.T) {
	for name, tc := range map[string]struct {
		spec string
		want []string // of the chain of the policy, of the direction that the policy has
	}{
		"nothing":         {"{podSelector: {}, policyTypes: [Ingress]}", nil},
		"everything":      {"{podSelector: {}, ingress: [{}]}", []string{"accept"}},
		"egress":          {"{podSelector: {}, policyTypes: [Egress], egress: [{}]}", []string{"goto to-pods"}},
		"default type":    {"{podSelector: {}, ingress: [{ports: [{port: 80}]}]}", []string{"tcp dport { 80 } accept"}},
		"ranges":          {"{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 90, endPort: 95}, {port: 94, endPort: 99}, {port: 100}, {protocol: SCTP, port: 7}]}]}", []string{"tcp dport { 80, 90-100 } accept", "sctp dport { 7 } accept"}},
		"whole protocol":  {"{podSelector: {}, ingress: [{ports: [{protocol: UDP}, {protocol: UDP, port: 3}]}]}", []string{"meta l4proto udp accept"}},
		"block":           {"{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.9.0.0/16, 10.9.1.0/24]}}]}]}", []string{"ip saddr 10.0.0.0/8 ip saddr != 10.9.0.0/16 ip saddr != 10.9.1.0/24 accept"}},
		"all of a family": {"{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '::/0', except: ['fd00::/8']}}], ports: [{port: 1}]}]}", []string{"meta nfproto ipv6 ip6 daddr != fd00::/8 tcp dport { 1 } goto to-pods"}},
	} {
		in := world()
		in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", tc.spec)}
		var got []string
		for chain, c := range Table(in).Chains {
			if strings.HasPrefix(chain, "policy-") {
				for _, r := range c.Rules {
					got = append(got, strings.TrimSuffix(r, ` comment "shop/p"`))
				}
			}
		}
		if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

// TestPeers looks at whom the selectors of one rule of a policy in shop select.
func TestPeers(t *testing.T) {
	for spec, want := range map[string]string{
		"{podSelector: {}}":                       "10.42.0.2 10.42.1.2",
		"{podSelector: {matchLabels: {app: db}}}": "10.42.1.2",
		"{namespaceSelector: {}}":                 "10.42.0.2 10.42.0.3 10.42.0.4 10.42.0.6 10.42.1.2 10.43.0.10",
		"{namespaceSelector: {matchLabels: {kind: outside}}, podSelector: {matchLabels: {app: cow}}}":                                                                                                "10.42.0.3",
		"{namespaceSelector: {matchExpressions: [{key: kind, operator: DoesNotExist}]}, podSelector: {matchLabels: {k8s-app: kube-dns}}}":                                                            "10.43.0.10",
		"{namespaceSelector: {matchExpressions: [{key: kind, operator: Exists}]}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web, pig]}, {key: app, operator: Exists}]}}": "10.42.0.3 10.42.1.2",
	} {
		in := world()
		in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", "{podSelector: {}, ingress: [{from: ["+spec+"]}]}")}
		var got []string
		for name, set := range Table(in).Sets {
			if strings.HasPrefix(name, "peers-") && strings.HasSuffix(name, "-4") {
				got = slices.Sorted(maps.Keys(set.Elements))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s selects %v, want %s", spec, got, want)
		}
	}
}

func TestWhoIsKnown(t *testing.T) {
	in := world()
	in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", "{podSelector: {matchLabels: {app: web}}}")}
	known := Table(in).Sets["known4"].Elements
	for ip, want := range map[string]bool{
		"10.42.0.2": true,  // by the API
		"10.42.0.4": true,  // its address by reservation, its labels by the API
		"10.42.0.5": false, // labels not known, and its namespace has a policy
		"10.42.0.6": true,  // labels not known, and nothing depends on them
		"10.42.0.7": true,  // no pod
		"10.42.1.2": false, // of another node
	} {
		if _, got := known[ip]; got != want {
			t.Errorf("%s known: %v", ip, got)
		}
	}
	in.Bridge = ""
	if rules := Table(in).Chains[UnknownChain].Rules; len(rules) != 0 {
		t.Errorf("without a bridge of ours there are %v", rules)
	}
}

func TestHundredsOfPods(t *testing.T) {
	in := world()
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{10, 42, byte(2 + i/200), byte(i % 200)})
		in.Pods = append(in.Pods, Pod{Namespace: "shop", Name: a.String(), Labels: map[string]string{"app": "db"}, Node: "n2", IPs: []netip.Addr{a}})
	}
	in.Policies = []*networkingv1.NetworkPolicy{policy(t, "shop", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}")}
	script := Table(in).Create()
	for line := range strings.Lines(script) {
		if len(line) > 8<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
