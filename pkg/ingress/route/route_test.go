package route

import (
	"crypto/tls"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// read makes an object of YAML.
func read[T any](t *testing.T, text string) *T {
	t.Helper()
	var out T
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// world has a service web with one endpoint on port http, in namespaces a and b.
func world(t *testing.T) *World {
	w := &World{
		IngressClasses: []*networkingv1.IngressClass{read[networkingv1.IngressClass](t,
			"{metadata: {name: kedge, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}, spec: {controller: kedge.io/ingress}}")},
		GatewayClasses: []*gatewayv1.GatewayClass{read[gatewayv1.GatewayClass](t, "{metadata: {name: kedge}, spec: {controllerName: kedge.io/gateway}}")},
		Services:       map[string]*corev1.Service{}, Slices: map[string][]*discoveryv1.EndpointSlice{},
		Pair:      func(string, string) (*tls.Certificate, error) { return nil, errors.New("no such secret") },
		Addresses: []string{"192.0.2.1"}, Reserved: []int{22},
	}
	for _, namespace := range []string{"a", "b"} {
		w.Services[namespace+"/web"] = read[corev1.Service](t, "{metadata: {name: web}, spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}")
		w.Slices[namespace+"/web"] = []*discoveryv1.EndpointSlice{read[discoveryv1.EndpointSlice](t, `
addressType: IPv4
ports: [{name: http, port: 8080}, {name: other, port: 1}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}, {addresses: [10.0.0.2], conditions: {ready: false}}]`)}
	}
	return w
}

func gateway(t *testing.T, listeners string) *gatewayv1.Gateway {
	return read[gatewayv1.Gateway](t, "{metadata: {name: edge, namespace: a}, spec: {gatewayClassName: kedge, listeners: "+listeners+"}}")
}

func httpRoute(t *testing.T, name, namespace, spec string) *gatewayv1.HTTPRoute {
	r := read[gatewayv1.HTTPRoute](t, "{spec: {parentRefs: [{name: edge, namespace: a}], "+spec+"}}")
	r.Name, r.Namespace = name, namespace
	return r
}

// asked is the name of the rule that a request goes by.
func asked(p *Port, host, path string) string {
	r := httptest.NewRequest("GET", "http://"+host+path, nil)
	r.Host = host
	if rule := p.Match(r); rule != nil {
		return rule.Host + rule.Path
	}
	return "none"
}

func TestBestRuleWins(t *testing.T) {
	p := &Port{}
	for i, r := range []Rule{
		{Host: "", Path: "/"}, {Host: "*.x.test", Path: "/", OneLabel: true}, {Host: "*.test", Path: "/"}, {Host: "a.x.test", Path: "/api"},
		{Host: "a.x.test", Path: "/api/v2"}, {Host: "a.x.test", Path: "/api", Exact: true, Method: "POST"},
	} {
		r.order = i
		p.add(&r)
	}
	p.arrange()
	for _, c := range []struct{ host, path, want string }{
		{"a.x.test", "/api/v2/x", "a.x.test/api/v2"}, {"a.x.test", "/api/v22", "a.x.test/api"}, {"A.X.test:8080", "/api", "a.x.test/api"},
		{"a.x.test", "/apix", "*.x.test/"}, {"b.x.test.", "/", "*.x.test/"}, {"b.c.x.test", "/", "*.test/"}, {"x.test", "/", "*.test/"}, {"other", "/", "/"},
	} {
		if got := asked(p, c.host, c.path); got != c.want {
			t.Errorf("%s%s goes to %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

func TestIngress(t *testing.T) {
	w := world(t)
	backend := "backend: {service: {name: web, port: {name: http}}}"
	w.Ingresses = []*networkingv1.Ingress{
		read[networkingv1.Ingress](t, "{metadata: {name: one, namespace: a}, spec: {rules: [{host: One.test, http: {paths: [{path: /x, pathType: Exact, "+backend+"}]}}]}}"),
		read[networkingv1.Ingress](t, "{metadata: {name: two, namespace: a}, spec: {ingressClassName: nginx, rules: [{host: two.test, http: {paths: [{path: /, "+backend+"}]}}]}}"),
		read[networkingv1.Ingress](t, "{metadata: {name: lost, namespace: c}, spec: {rules: [{host: lost.test, http: {paths: [{path: /, "+backend+"}]}}]}}"),
	}
	o := Build(w)
	if len(o.Ingresses) != 2 || o.Ports[80] == nil || o.Ports[80].TLS || o.Ports[443] == nil || !o.Ports[443].TLS {
		t.Fatalf("%d Ingresses, ports %v", len(o.Ingresses), o.Ports)
	}
	for _, c := range [][3]string{{"one.test", "/x", "one.test/x"}, {"one.test", "/x/y", "none"}, {"two.test", "/", "none"}, {"lost.test", "/", "lost.test/"}} {
		if got := asked(o.Ports[443], c[0], c[1]); got != c[2] {
			t.Errorf("%s%s goes to %s, want %s", c[0], c[1], got, c[2])
		}
	}
	rule := o.Ports[80].exact["one.test"][0]
	if _, address := rule.Pick(); address != "10.0.0.1:8080" {
		t.Errorf("the address is %q", address)
	}
	if lost := o.Ports[80].exact["lost.test"][0]; lost.Status != 503 {
		t.Errorf("a service that does not exist: status %d", lost.Status)
	}
}

func TestGatewayStatuses(t *testing.T) {
	w := world(t)
	w.Gateways = []*gatewayv1.Gateway{gateway(t, `[{name: web, port: 80, protocol: HTTP, hostname: "*.test"}, {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}},
{name: tcp, port: 90, protocol: TCP}, {name: ssh, port: 22, protocol: HTTP}, {name: clash, port: 80, protocol: HTTPS}]`)}
	o := Build(w)
	var got []string
	for _, l := range o.Gateways["a/edge"].Listeners {
		got = append(got, l.Conditions[0].Reason+" "+l.Conditions[2].Reason)
	}
	want := []string{"Accepted ResolvedRefs", "Accepted InvalidCertificateRef", "UnsupportedProtocol ResolvedRefs", "PortUnavailable ResolvedRefs", "ProtocolConflict ResolvedRefs"}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("listeners are %q, want %q", got, want)
		}
	}
	if len(o.Ports) != 1 || o.Ports[80] == nil {
		t.Errorf("ports are %v", o.Ports)
	}
}

func TestRouteStatuses(t *testing.T) {
	w := world(t)
	w.Gateways = []*gatewayv1.Gateway{gateway(t, `[{name: web, port: 80, protocol: HTTP, hostname: "*.test"}]`)}
	refs := "rules: [{backendRefs: [{name: web, port: 80}]}]"
	w.Routes = []*gatewayv1.HTTPRoute{
		httpRoute(t, "good", "a", "hostnames: [x.test], "+refs), httpRoute(t, "host", "a", "hostnames: [x.other], "+refs), httpRoute(t, "away", "b", refs),
		httpRoute(t, "lost", "a", "rules: [{backendRefs: [{name: none, port: 80}]}]"),
		httpRoute(t, "across", "a", "rules: [{backendRefs: [{name: web, namespace: b, port: 80}]}]"),
		httpRoute(t, "regex", "a", "rules: [{matches: [{path: {type: RegularExpression, value: /a.*}}]}]"),
		httpRoute(t, "mirror", "a", "rules: [{filters: [{type: RequestMirror}]}]"),
	}
	check := func(want map[string]string) {
		t.Helper()
		o := Build(w)
		for name, reasons := range want {
			p := o.Routes[name]
			if len(p) != 1 || p[0].Conditions[0].Reason+" "+p[0].Conditions[1].Reason != reasons {
				t.Errorf("%s: %+v, want %s", name, p, reasons)
			}
		}
	}
	check(map[string]string{
		"a/good": "Accepted ResolvedRefs", "a/host": "NoMatchingListenerHostname ResolvedRefs", "b/away": "NotAllowedByListeners ResolvedRefs",
		"a/lost": "Accepted BackendNotFound", "a/across": "Accepted RefNotPermitted", "a/regex": "UnsupportedValue ResolvedRefs", "a/mirror": "UnsupportedValue ResolvedRefs",
	})
	w.Grants = []*gatewayv1beta1.ReferenceGrant{read[gatewayv1beta1.ReferenceGrant](t,
		"{metadata: {name: g, namespace: b}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}]}}")}
	all := gatewayv1.NamespacesFromAll
	w.Gateways[0].Spec.Listeners[0].AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}}
	check(map[string]string{"a/across": "Accepted ResolvedRefs", "b/away": "Accepted ResolvedRefs"})
}

func TestPathChange(t *testing.T) {
	for _, c := range []struct{ value, path, matched, want string }{
		{"/new", "/old/a", "/old", "/new/a"}, {"/new/", "/old", "/old/", "/new"}, {"/", "/old/a", "/old", "/a"}, {"", "/old", "/old", "/"},
	} {
		if got := (&PathChange{Value: c.value, Prefix: true}).Apply(c.path, c.matched); got != c.want {
			t.Errorf("%s of %s by %s is %s, want %s", c.path, c.matched, c.value, got, c.want)
		}
	}
}

func TestWeights(t *testing.T) {
	a := &Action{Backends: []Backend{{Weight: 3, Addresses: []string{"x"}}, {Weight: 0, Addresses: []string{"y"}}, {Weight: 1}}}
	seen := map[string]int{}
	for range 4000 {
		_, address := a.Pick()
		seen[address]++
	}
	if seen["y"] != 0 || seen["x"] < 2700 || seen[""] < 700 {
		t.Errorf("shares %v", seen)
	}
	if b, _ := (&Action{}).Pick(); b != nil {
		t.Error("a backend out of nothing")
	}
}

func TestOlderRuleWins(t *testing.T) {
	p := &Port{}
	now := time.Now()
	p.add(&Rule{Path: "/", name: "a/young", created: now})
	p.add(&Rule{Path: "/", name: "b/old", created: now.Add(-time.Hour)})
	p.arrange()
	if got := p.Match(httptest.NewRequest("GET", "http://x/", nil)); got.name != "b/old" {
		t.Errorf("%s wins", got.name)
	}
}
