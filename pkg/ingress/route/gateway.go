package route

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// listener is one listener of a Gateway of ours.
type listener struct {
	gateway  *gatewayv1.Gateway
	spec     *gatewayv1.Listener
	hostname string
	port     *Port // nil when it cannot be served
	status   *gatewayv1.ListenerStatus
}

// gateways adds the listeners of our Gateways and the rules of the routes that are attached to them.
func (w *World) gateways(o *Outcome) {
	classes := map[string]bool{}
	for _, c := range w.GatewayClasses {
		if c.Spec.ControllerName == GatewayController {
			classes[c.Name] = true
			o.GatewayClasses = append(o.GatewayClasses, c)
		}
	}
	gateways := slices.Clone(w.Gateways)
	slices.SortFunc(gateways, func(a, b *gatewayv1.Gateway) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(key(a), key(b)))
	})
	listeners := map[string][]*listener{} // by Gateway
	for _, g := range gateways {
		if g.DeletionTimestamp != nil || !classes[string(g.Spec.GatewayClassName)] {
			continue
		}
		listeners[key(g)] = w.listeners(o, g)
	}
	for _, r := range w.Routes {
		if r.DeletionTimestamp == nil {
			w.attach(o, r, listeners)
		}
	}
}

func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// listeners makes the listeners of a Gateway, and its status.
func (w *World) listeners(o *Outcome, g *gatewayv1.Gateway) []*listener {
	status := &gatewayv1.GatewayStatus{Addresses: []gatewayv1.GatewayStatusAddress{}, Listeners: make([]gatewayv1.ListenerStatus, len(g.Spec.Listeners))}
	kind := gatewayv1.IPAddressType
	for _, a := range w.Addresses {
		status.Addresses = append(status.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
	}
	var out []*listener
	bad := 0
	for i := range g.Spec.Listeners {
		l := &listener{gateway: g, spec: &g.Spec.Listeners[i], status: &status.Listeners[i]}
		if l.spec.Hostname != nil {
			l.hostname = strings.ToLower(string(*l.spec.Hostname))
		}
		w.open(o, l)
		if l.port == nil {
			bad++
		}
		out = append(out, l)
	}
	accepted := cond("Accepted", true, "Accepted", "", g.Generation)
	if bad > 0 {
		accepted = cond("Accepted", bad < len(out), "ListenersNotValid", fmt.Sprintf("%d of %d listeners cannot be served: see their conditions", bad, len(out)), g.Generation)
	}
	programmed := cond("Programmed", bad < len(out), "Programmed", "", g.Generation)
	if bad == len(out) {
		programmed.Reason = "Invalid"
	}
	status.Conditions = []metav1.Condition{accepted, programmed}
	o.Gateways[key(g)] = status
	return out
}

// open finds the table for a listener and its certificates, and says in its status what is wrong.
func (w *World) open(o *Outcome, l *listener) {
	g, s, number := l.gateway.Generation, l.status, int(l.spec.Port)
	group := gatewayv1.Group(gatewayv1.GroupName)
	s.Name, s.SupportedKinds = l.spec.Name, []gatewayv1.RouteGroupKind{{Group: &group, Kind: "HTTPRoute"}}
	refs := cond("ResolvedRefs", true, "ResolvedRefs", "", g)
	if k := l.spec.AllowedRoutes; k != nil {
		for _, kind := range k.Kinds {
			if kind.Kind != "HTTPRoute" {
				refs = cond("ResolvedRefs", false, "InvalidRouteKinds", fmt.Sprintf("kind %s is not served, only HTTPRoute", kind.Kind), g)
			}
		}
	}
	secure := l.spec.Protocol == gatewayv1.HTTPSProtocolType
	table := o.Ports[number]
	reason, message := "", ""
	var pairs []*tls.Certificate
	switch {
	case !secure && l.spec.Protocol != gatewayv1.HTTPProtocolType:
		reason, message = "UnsupportedProtocol", fmt.Sprintf("protocol %s is not served, only HTTP and HTTPS", l.spec.Protocol)
	case slices.Contains(w.Reserved, number):
		reason, message = "PortUnavailable", fmt.Sprintf("port %d belongs to the node", number)
	case table != nil && table.TLS != secure:
		reason, message = "ProtocolConflict", fmt.Sprintf("another listener or an Ingress uses port %d with the other protocol", number)
	case secure:
		var err error
		if pairs, err = w.pairs(l); err != nil {
			refs = cond("ResolvedRefs", false, "InvalidCertificateRef", err.Error(), g)
		}
	}
	conflicted := cond("Conflicted", reason == "ProtocolConflict", "NoConflicts", "", g)
	if reason == "ProtocolConflict" {
		conflicted.Reason = reason
	}
	ok := reason == "" && refs.Reason != "InvalidCertificateRef"
	if ok {
		l.port = o.port(number, secure)
		for _, pair := range pairs {
			l.port.Certs = append(l.port.Certs, Cert{Host: l.hostname, Pair: pair})
		}
	}
	accepted, programmed := cond("Accepted", reason == "", cmp.Or(reason, "Accepted"), message, g), cond("Programmed", ok, "Programmed", "", g)
	if !ok {
		programmed.Reason = "Invalid"
	}
	s.Conditions = []metav1.Condition{accepted, programmed, refs, conflicted}
}

// pairs reads the certificates of a listener.
func (w *World) pairs(l *listener) ([]*tls.Certificate, error) {
	if l.spec.TLS == nil || len(l.spec.TLS.CertificateRefs) == 0 {
		return nil, fmt.Errorf("tls.certificateRefs: name a Secret with tls.crt and tls.key")
	}
	if m := l.spec.TLS.Mode; m != nil && *m != gatewayv1.TLSModeTerminate {
		return nil, fmt.Errorf("tls.mode: %s is not served, only Terminate", *m)
	}
	var pairs []*tls.Certificate
	for _, ref := range l.spec.TLS.CertificateRefs {
		namespace := l.gateway.Namespace
		if ref.Namespace != nil {
			namespace = string(*ref.Namespace)
		}
		if ref.Kind != nil && *ref.Kind != "Secret" || ref.Group != nil && *ref.Group != "" {
			return nil, fmt.Errorf("tls.certificateRefs: %s is not a Secret", ref.Name)
		}
		if !w.granted("Gateway", l.gateway.Namespace, "Secret", namespace, string(ref.Name)) {
			return nil, fmt.Errorf("tls.certificateRefs: no ReferenceGrant in namespace %s lets Gateways of %s use secret %s", namespace, l.gateway.Namespace, ref.Name)
		}
		pair, err := w.Pair(namespace, string(ref.Name))
		if err != nil {
			return nil, fmt.Errorf("tls.certificateRefs: %w", err)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// granted says whether an object may refer to another one in a namespace that is not its own.
func (w *World) granted(fromKind, from, toKind, to, name string) bool {
	if from == to {
		return true
	}
	for _, g := range w.Grants {
		if g.Namespace != to {
			continue
		}
		asks := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return f.Group == gatewayv1.GroupName && string(f.Kind) == fromKind && string(f.Namespace) == from
		})
		gives := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return t.Group == "" && string(t.Kind) == toKind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		})
		if asks && gives {
			return true
		}
	}
	return false
}

// allows says whether routes of a namespace may attach to the listener.
func (w *World) allows(l *listener, namespace string) bool {
	a := l.spec.AllowedRoutes
	if a != nil && len(a.Kinds) > 0 && !slices.ContainsFunc(a.Kinds, func(k gatewayv1.RouteGroupKind) bool { return k.Kind == "HTTPRoute" }) {
		return false
	}
	if a == nil || a.Namespaces == nil || a.Namespaces.From == nil || *a.Namespaces.From == gatewayv1.NamespacesFromSame {
		return namespace == l.gateway.Namespace
	}
	switch *a.Namespaces.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(a.Namespaces.Selector)
		return err == nil && selector.Matches(w.Namespaces[namespace])
	}
	return false
}

func cond(kind string, value bool, reason, message string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: generation}
	if value {
		c.Status = metav1.ConditionTrue
	}
	return c
}
