package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
)

// TableName is the nftables table, of the family inet.
const TableName = "kedge-policy"

// Chains with a fixed name; those of policies and of pods have a hash of what is in them.
const (
	forwardChain = "forward"
	inputChain   = "input"
	// UnknownChain cuts off what is on the bridge and not known. Without it the table only restricts pods that it knows.
	UnknownChain = "unknown"
	ingressChain = "to-pods"
)

// Table compiles the rules of one node.
//
// A packet meets the rules of its sender first (map egress4 or egress6, by source address) and then those of its receiver (maps ingress4 and
// ingress6). A pod's entry leads to a chain that calls the chains of its policies; a rule that allows the packet ends the walk with goto to-pods
// (egress) or accept (ingress), and what comes back is dropped.
func Table(in Input) ruleset.Table {
	c := &compiler{in: in, table: ruleset.Table{Name: TableName, Sets: map[string]ruleset.Set{}, Chains: map[string]ruleset.Chain{}}}
	c.local = local(in)
	c.pods = peers(in, c.local)
	c.base()
	for _, d := range []direction{egress, ingress} {
		c.isolate(d)
	}
	return c.table
}

// direction is that of a connection, seen from the protected pod.
type direction networkingv1.PolicyType

const (
	egress  = direction(networkingv1.PolicyTypeEgress)
	ingress = direction(networkingv1.PolicyTypeIngress)
)

// name begins the names of what belongs to the direction.
func (d direction) name() string { return strings.ToLower(string(d)) }

// peer is the field of the address on the other side.
func (d direction) peer() string {
	if d == egress {
		return "daddr"
	}
	return "saddr"
}

// allowed is what happens to what a policy allows.
func (d direction) allowed() string {
	if d == egress {
		return "goto " + ingressChain
	}
	return "accept"
}

type compiler struct {
	in    Input
	pods  []Pod // all, as peers
	local []Pod // of this node, as protected
	table ruleset.Table
}

// base writes what does not depend on policies.
func (c *compiler) base() {
	established := "ct state vmap { established : accept, related : accept }"
	neighbors := "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, " +
		"mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"
	byEgress := []string{"ip saddr vmap @egress4", "ip6 saddr vmap @egress6"}
	hook := func(name string) string { return "type filter hook " + name + " priority filter; policy accept;" }
	c.table.Chains[forwardChain] = ruleset.Chain{Hook: hook("forward"), Rules: slices.Concat(
		[]string{established, neighbors, "ip saddr . ip daddr @self4 accept", "ip6 saddr . ip6 daddr @self6 accept", "jump " + UnknownChain},
		byEgress, []string{"goto " + ingressChain})}
	// What the node sends to its own pods goes through neither hook: it is always allowed.
	c.table.Chains[inputChain] = ruleset.Chain{Hook: hook("input"), Rules: slices.Concat([]string{established, neighbors, "jump " + UnknownChain}, byEgress)}
	c.table.Chains[ingressChain] = ruleset.Chain{Rules: []string{"ip daddr vmap @ingress4", "ip6 daddr vmap @ingress6", "accept"}}
	c.table.Chains[UnknownChain] = ruleset.Chain{Rules: c.unknownRules()}
	for _, f := range families() {
		c.table.Sets["known"+f.digit] = ruleset.Set{Type: f.addr, Elements: map[string]string{}}
		c.table.Sets["self"+f.digit] = ruleset.Set{Type: f.addr + " . " + f.addr, Elements: map[string]string{}}
		c.table.Sets["egress"+f.digit] = ruleset.Set{Type: f.addr, Verdicts: true, Elements: map[string]string{}}
		c.table.Sets["ingress"+f.digit] = ruleset.Set{Type: f.addr, Verdicts: true, Elements: map[string]string{}}
	}
	for _, p := range c.local {
		for _, ip := range p.IPs {
			c.table.Sets["known"+familyOf(ip).digit].Elements[ip.String()] = ""
			c.table.Sets["self"+familyOf(ip).digit].Elements[ip.String()+" . "+ip.String()] = ""
		}
	}
}

func (c *compiler) unknownRules() []string {
	if c.in.Bridge == "" {
		return nil
	}
	var rules []string
	for _, f := range families() {
		rules = append(rules,
			fmt.Sprintf("iifname %q %s saddr != @known%s drop", c.in.Bridge, f.ip, f.digit),
			fmt.Sprintf("oifname %q %s daddr != @known%s drop", c.in.Bridge, f.ip, f.digit))
	}
	return rules
}

// local lists the pods of the node with the addresses that they have been given. A pod whose labels are not known yet is left
// out if a policy of its namespace may concern it: it is cut off until they are.
func local(in Input) []Pod {
	own := map[string]*Pod{}
	var pods []*Pod
	for i := range in.Pods {
		if in.Pods[i].Node != in.Node {
			continue
		}
		p := in.Pods[i]
		pods = append(pods, &p)
		for _, uid := range p.UIDs {
			own[uid] = &p
		}
	}
	guarded := map[string]bool{}
	for _, p := range in.Policies {
		guarded[p.Namespace] = true
	}
	for _, r := range in.Reservations {
		switch p := own[r.UID]; {
		case p != nil:
			p.IPs = union(p.IPs, r.IPs)
		case !guarded[r.Namespace]:
			pods = append(pods, &Pod{Namespace: r.Namespace, Name: r.Name, IPs: r.IPs})
		}
	}
	out := make([]Pod, len(pods))
	for i, p := range pods {
		out[i] = *p
	}
	return out
}

// peers lists all pods, those of the node with the addresses that they have been given.
func peers(in Input, local []Pod) []Pod {
	out := []Pod{dnsPod(in.DNS)}
	for _, p := range in.Pods {
		if p.Node != in.Node {
			out = append(out, p)
		}
	}
	for _, p := range local {
		if p.Namespace != "" {
			out = append(out, p)
		}
	}
	return out
}

func union(a, b []netip.Addr) []netip.Addr {
	out := append(slices.Clone(a), b...)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// chosen is a policy with its chain for one direction.
type chosen struct {
	namespace string
	selector  labels.Selector
	chain     string
}

// isolate leads the local pods that some policy selects to the chains of their policies.
func (c *compiler) isolate(d direction) {
	var policies []chosen
	for _, p := range c.in.Policies {
		if !concerns(p, networkingv1.PolicyType(d)) {
			continue
		}
		selector := selectorOf(&p.Spec.PodSelector)
		policies = append(policies, chosen{p.Namespace, selector, c.policyChain(p, d)})
	}
	for _, pod := range c.local {
		var chains []string
		for _, p := range policies {
			if p.namespace == pod.Namespace && p.selector.Matches(labels.Set(pod.Labels)) {
				chains = append(chains, p.chain)
			}
		}
		if len(chains) == 0 {
			continue
		}
		group := c.groupChain(chains, d)
		for _, ip := range pod.IPs {
			c.table.Sets[d.name()+familyOf(ip).digit].Elements[ip.String()] = "goto " + group
		}
	}
}

// concerns says whether a policy isolates pods in a direction; the API server fills in policyTypes.
func concerns(p *networkingv1.NetworkPolicy, typ networkingv1.PolicyType) bool {
	if len(p.Spec.PolicyTypes) > 0 {
		return slices.Contains(p.Spec.PolicyTypes, typ)
	}
	return typ == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
}

// groupChain is for all pods with the same policies.
func (c *compiler) groupChain(chains []string, d direction) string {
	slices.Sort(chains)
	var rules []string
	for _, chain := range slices.Compact(chains) {
		rules = append(rules, "jump "+chain)
	}
	rules = append(rules, "drop")
	return c.addChain("pods-"+d.name()+"-", rules)
}

// policyChain holds what a policy allows.
func (c *compiler) policyChain(p *networkingv1.NetworkPolicy, d direction) string {
	var rules []string
	comment := fmt.Sprintf(" comment %q", shorten(p.Namespace+"/"+p.Name))
	for _, allowed := range permissions(p, d) {
		for _, match := range c.matches(p.Namespace, allowed, d) {
			rules = append(rules, strings.TrimSpace(match+" "+d.allowed())+comment)
		}
	}
	return c.addChain("policy-"+d.name()+"-", rules)
}

// shorten makes a text fit into a comment.
func shorten(s string) string {
	const longest = 120
	return s[:min(len(s), longest)]
}

// addChain adds a chain whose name says what is in it, so that a chain never changes.
func (c *compiler) addChain(prefix string, rules []string) string {
	name := prefix + digest(strings.Join(rules, "\n"))
	c.table.Chains[name] = ruleset.Chain{Rules: rules}
	return name
}

// digest names a text with 16 hex digits.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// selectorOf reads a selector that the API server has checked; one that cannot be read selects nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}
