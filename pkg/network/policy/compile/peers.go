package compile

import (
	"encoding/json"
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
)

// family is an IP family in the words of nft.
type family struct{ digit, ip, addr string }

func families() []family { return []family{{"4", "ip", "ipv4_addr"}, {"6", "ip6", "ipv6_addr"}} }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families()[0]
	}
	return families()[1]
}

// permission is one ingress or egress rule.
type permission struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func permissions(p *networkingv1.NetworkPolicy, d direction) []permission {
	var out []permission
	if d == egress {
		for _, r := range p.Spec.Egress {
			out = append(out, permission{r.To, r.Ports})
		}
		return out
	}
	for _, r := range p.Spec.Ingress {
		out = append(out, permission{r.From, r.Ports})
	}
	return out
}

// match is a condition on packets; digit is the IP family that it is about, or empty for both.
type match struct{ digit, text string }

// matches lists the conditions under which a permission holds, one for each rule of nft.
func (c *compiler) matches(namespace string, p permission, d direction) []string {
	var out []string
	for _, peer := range c.peerMatches(namespace, p.peers, d) {
		for _, port := range c.portMatches(p.ports) {
			if peer.digit != "" && port.digit != "" && peer.digit != port.digit {
				continue
			}
			text := peer.text
			if text != "" && port.text != "" {
				text += " "
			}
			out = append(out, text+port.text)
		}
	}
	return out
}

// peerMatches are the conditions on the other side's address: a block has its own, all selectors of a rule share a set.
func (c *compiler) peerMatches(namespace string, peers []networkingv1.NetworkPolicyPeer, d direction) []match {
	if len(peers) == 0 {
		return []match{{}}
	}
	var out []match
	var selecting []networkingv1.NetworkPolicyPeer
	for _, p := range peers {
		if p.IPBlock == nil {
			selecting = append(selecting, p)
			continue
		}
		if m, ok := blockMatch(p.IPBlock, d); ok {
			out = append(out, m)
		}
	}
	if len(selecting) == 0 {
		return out
	}
	name := c.peerSet(namespace, selecting)
	for _, f := range families() {
		out = append(out, match{f.digit, fmt.Sprintf("%s %s @%s-%s", f.ip, d.peer(), name, f.digit)})
	}
	return out
}

func blockMatch(b *networkingv1.IPBlock, d direction) (match, bool) {
	in, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return match{}, false // the API server has checked it
	}
	f := familyOf(in.Addr())
	text := fmt.Sprintf("%s %s %s", f.ip, d.peer(), in.Masked())
	if in.Bits() == 0 {
		text = "meta nfproto ipv" + f.digit
	}
	for _, e := range b.Except {
		if out, err := netip.ParsePrefix(e); err == nil && out.Addr().Is4() == in.Addr().Is4() {
			text += fmt.Sprintf(" %s %s != %s", f.ip, d.peer(), out.Masked())
		}
	}
	return match{f.digit, text}, true
}

// peerSet makes the sets of the addresses that any of the selectors selects, and returns their name without the family.
func (c *compiler) peerSet(namespace string, peers []networkingv1.NetworkPolicyPeer) string {
	key, err := json.Marshal(peers)
	if err != nil {
		key = fmt.Append(nil, peers) // cannot happen: it came as JSON
	}
	name := "peers-" + digest(namespace+" "+string(key))
	if _, ok := c.table.Sets[name+"-4"]; ok {
		return name
	}
	for _, f := range families() {
		c.table.Sets[name+"-"+f.digit] = ruleset.Set{Type: f.addr, Elements: map[string]string{}}
	}
	for _, p := range peers {
		c.fill(name, namespace, p)
	}
	return name
}

// fill adds the addresses that one selector selects.
func (c *compiler) fill(set, namespace string, peer networkingv1.NetworkPolicyPeer) {
	pods, spaces := labels.Everything(), labels.Everything()
	if peer.PodSelector != nil {
		pods = selectorOf(peer.PodSelector)
	}
	if peer.NamespaceSelector != nil {
		spaces = selectorOf(peer.NamespaceSelector)
	}
	for _, p := range c.pods {
		if peer.NamespaceSelector == nil && p.Namespace != namespace {
			continue
		}
		if !pods.Matches(labels.Set(p.Labels)) || !spaces.Matches(labels.Set(c.in.Namespaces[p.Namespace])) {
			continue
		}
		for _, ip := range p.IPs {
			c.table.Sets[set+"-"+familyOf(ip).digit].Elements[ip.String()] = ""
		}
	}
}
