package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
)

// span is a range of port numbers, both ends included.
type span struct{ first, last int32 }

func (s span) String() string {
	if s.first == s.last {
		return fmt.Sprint(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// merge sorts ranges and joins those that touch: nft takes no overlapping ones.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// protocols are those that policies know, in the order in which rules name them.
func protocols() []string { return []string{"tcp", "udp", "sctp"} }

// portMatches are the conditions on protocol and port of the receiver: one for each protocol with numbers, and two for each name, whose
// number is a matter of the receiving pod.
func (c *compiler) portMatches(ports []networkingv1.NetworkPolicyPort) []match {
	if len(ports) == 0 {
		return []match{{}}
	}
	numbers, whole := map[string][]span{}, map[string]bool{}
	var named []match
	for _, p := range ports {
		protocol := "tcp"
		if p.Protocol != nil {
			protocol = strings.ToLower(string(*p.Protocol))
		}
		switch {
		case p.Port == nil:
			whole[protocol] = true
		case p.Port.Type == intstr.String:
			named = append(named, c.namedPort(protocol, p.Port.StrVal)...)
		case p.EndPort != nil:
			numbers[protocol] = append(numbers[protocol], span{p.Port.IntVal, *p.EndPort})
		default:
			numbers[protocol] = append(numbers[protocol], span{p.Port.IntVal, p.Port.IntVal})
		}
	}
	var out []match
	for _, protocol := range protocols() {
		if whole[protocol] {
			out = append(out, match{"", "meta l4proto " + protocol})
			continue
		}
		var texts []string
		for _, s := range merge(numbers[protocol]) {
			texts = append(texts, s.String())
		}
		if len(texts) > 0 {
			out = append(out, match{"", fmt.Sprintf("%s dport { %s }", protocol, strings.Join(texts, ", "))})
		}
	}
	return append(out, named...)
}

// namedPort makes the sets of what has a port of that name: the receiver's address, the protocol and the number.
func (c *compiler) namedPort(protocol, port string) []match {
	name := "port-" + digest(protocol+" "+port)
	var out []match
	for _, f := range families() {
		out = append(out, match{f.digit, fmt.Sprintf("%s daddr . meta l4proto . th dport @%s-%s", f.ip, name, f.digit)})
		if _, ok := c.table.Sets[name+"-"+f.digit]; !ok {
			c.table.Sets[name+"-"+f.digit] = ruleset.Set{Type: f.addr + " . inet_proto . inet_service", Elements: map[string]string{}}
		}
	}
	for _, pod := range c.pods {
		for _, p := range pod.Ports {
			if p.Name != port || strings.ToLower(cmp.Or(p.Protocol, string(corev1.ProtocolTCP))) != protocol {
				continue
			}
			for _, ip := range pod.IPs {
				c.table.Sets[name+"-"+familyOf(ip).digit].Elements[fmt.Sprintf("%s . %s . %d", ip, protocol, p.Number)] = ""
			}
		}
	}
	return out
}
