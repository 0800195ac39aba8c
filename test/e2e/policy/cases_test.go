package policy

import "fmt"

// truth is policies, and which cells must answer while they are in force.
type truth struct {
	name, policies string
	// services tries the pods through their Services.
	services bool
	answers  func(from, to peer, where at) bool
}

// np is a NetworkPolicy as YAML.
func np(namespace, name, spec string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: %q}\nspec: %s\n---\n", name, namespace, spec)
}

func denyX() string { return np("x", "deny", "{podSelector: {}}") }

// The tables are written by hand, and not with the rules of the product.
func cases() []truth {
	return append(ingressCases(), egressCases()...)
}

func ingressCases() []truth {
	return []truth{
		{name: "deny all ingress", policies: denyX(), answers: func(_, to peer, _ at) bool { return to.ns != "x" }},
		{name: "from pods of the namespace", policies: np("x", "p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"),
			answers: func(from, to peer, _ at) bool { return to != peer{"x", "a"} || from == peer{"x", "b"} }},
		{name: "from a namespace", policies: np("x", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"),
			answers: func(from, to peer, _ at) bool { return to.ns != "x" || from.ns == "y" }},
		{name: "from pods of a namespace", policies: np("x", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}, podSelector: {matchLabels: {pod: a}}}]}]}"),
			answers: func(from, to peer, _ at) bool { return to.ns != "x" || from == peer{"y", "a"} }},
		{name: "from a namespace or pods", policies: np("x", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}, {podSelector: {matchLabels: {pod: b}}}]}]}"),
			answers: func(from, to peer, _ at) bool {
				return to.ns != "x" || from.ns == "y" || from == peer{"x", "b"}
			}},
		{name: "expressions", policies: np("x", "p", `{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}, ingress: [{from: [{
			namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}, {key: ns, operator: Exists}]}, podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}}]}]}`),
			answers: func(from, to peer, _ at) bool {
				return to.ns != "x" || to.pod == "c" || from.ns != "x" && from.pod != "a"
			}},
		{name: "one TCP port", policies: np("x", "p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 8080}]}]}"),
			answers: func(_, to peer, w at) bool { return to != peer{"x", "a"} || w == at{"tcp", 8080} }},
		{name: "one UDP port", policies: np("x", "p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: UDP, port: 8081}]}]}"),
			answers: func(_, to peer, w at) bool { return to != peer{"x", "a"} || w == at{"udp", 8081} }},
		{name: "a named port", policies: np("x", "p", "{podSelector: {}, ingress: [{ports: [{port: alt}, {port: main-udp, protocol: UDP}]}]}"),
			answers: func(_, to peer, w at) bool {
				return to.ns != "x" || w == alt(to) || w == at{"udp", 8080}
			}},
		{name: "a range of ports", policies: np("x", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{port: 8000, endPort: 8080}, {protocol: UDP, port: 8081, endPort: 9999}]}]}"),
			answers: func(from, to peer, w at) bool {
				return to.ns != "x" || from.ns == "z" && (w == at{"tcp", 8080} || w == at{"udp", 8081})
			}},
		{name: "blocks and exceptions", policies: np("x", "p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.42.0.0/16, except: [$y_b/32, $z_a/32]}}]}]}`),
			answers: func(from, to peer, _ at) bool {
				return to.ns != "x" || from != peer{"y", "b"} && from != peer{"z", "a"}
			}},
		{name: "policies add up", policies: denyX() + np("x", "one", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}") +
			np("x", "two", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: c}}}], ports: [{port: 8081}]}]}"),
			answers: func(from, to peer, w at) bool {
				return to.ns != "x" || to.pod == "a" && from.ns == "y" || from == peer{"z", "c"} && w == at{"tcp", 8081}
			}},
		{name: "allow all beside deny all", policies: denyX() + np("x", "allow", "{podSelector: {}, ingress: [{}]}"), answers: func(peer, peer, at) bool { return true }},
		{name: "ingress through Services", services: true, policies: np("x", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"),
			answers: func(from, to peer, _ at) bool { return to.ns != "x" || from.ns == "y" }},
	}
}

func egressCases() []truth {
	return []truth{
		{name: "deny all egress", policies: np("x", "p", "{podSelector: {}, policyTypes: [Egress]}"), answers: func(from, _ peer, _ at) bool { return from.ns != "x" }},
		{name: "egress to a namespace", policies: np("x", "p", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"),
			answers: func(from, to peer, _ at) bool { return from != peer{"x", "a"} || to.ns == "y" }},
		{name: "egress to pods and port", policies: np("x", "p", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: b}}}], ports: [{protocol: UDP, port: 8080}]}]}"),
			answers: func(from, to peer, w at) bool {
				return from.ns != "x" || to.pod == "b" && w == at{"udp", 8080}
			}},
		{name: "egress to a named port", policies: np("x", "p", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: alt}]}]}"),
			answers: func(from, to peer, w at) bool { return from.ns != "x" || w == alt(to) }},
		{name: "egress to a block", policies: np("x", "p", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: $z_c/32}}, {ipBlock: {cidr: $y_b/32}}]}]}"),
			answers: func(from, to peer, _ at) bool {
				return from.ns != "x" || to == peer{"z", "c"} || to == peer{"y", "b"}
			}},
		{name: "both directions", policies: np("x", "p", "{podSelector: {}, policyTypes: [Ingress, Egress]}"), answers: func(from, to peer, _ at) bool { return from.ns != "x" && to.ns != "x" }},
		{name: "egress and another's ingress", policies: np("y", "in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}]}]}") +
			np("x", "out", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"),
			answers: func(from, to peer, _ at) bool {
				return (from.ns != "x" || to.ns == "y") && (to.ns != "y" || from == peer{"x", "a"})
			}},
		{name: "egress through Services", services: true, policies: np("x", "p", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: 'y'}}}], ports: [{port: 8080}]}]}"),
			answers: func(from, to peer, w at) bool { return from.ns != "x" || to.ns == "y" && w.network == "tcp" }},
	}
}

// alt is the port "alt" of a pod.
func alt(p peer) at {
	if p.pod == "c" {
		return at{"tcp", 8080}
	}
	return at{"tcp", 8081}
}
