package route

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// Names that kedge's classes carry.
const (
	// IngressController is spec.controller of IngressClasses that kedge serves.
	IngressController = "kedge.io/ingress"
	// GatewayController is spec.controllerName of GatewayClasses that kedge serves.
	GatewayController = "kedge.io/gateway"
)

// World is everything that a decision is made from.
type World struct {
	Ingresses      []*networkingv1.Ingress
	IngressClasses []*networkingv1.IngressClass
	GatewayClasses []*gatewayv1.GatewayClass
	Gateways       []*gatewayv1.Gateway
	Routes         []*gatewayv1.HTTPRoute
	Grants         []*gatewayv1beta1.ReferenceGrant
	Services       map[string]*corev1.Service              // by namespace/name
	Slices         map[string][]*discoveryv1.EndpointSlice // by namespace/name of the Service
	Namespaces     map[string]labels.Set
	// Pair reads a certificate from a Secret.
	Pair func(namespace, name string) (*tls.Certificate, error)
	// Addresses are where clients find us.
	Addresses []string
	// Reserved are ports of the node that a Gateway must not take.
	Reserved []int
}

// Outcome is what follows from a World.
type Outcome struct {
	Ports map[int]*Port
	// Ingresses are those that we serve.
	Ingresses []*networkingv1.Ingress
	// GatewayClasses are ours.
	GatewayClasses []*gatewayv1.GatewayClass
	// Gateways and Routes are statuses by namespace/name.
	Gateways map[string]*gatewayv1.GatewayStatus
	Routes   map[string][]gatewayv1.RouteParentStatus
}

// Build decides. The conditions of statuses have no times.
func Build(w *World) *Outcome {
	o := &Outcome{Ports: map[int]*Port{}, Gateways: map[string]*gatewayv1.GatewayStatus{}, Routes: map[string][]gatewayv1.RouteParentStatus{}}
	w.ingresses(o)
	w.gateways(o)
	for _, p := range o.Ports {
		p.arrange()
	}
	return o
}

// port returns the table of a port, making it.
func (o *Outcome) port(number int, tls bool) *Port {
	p := o.Ports[number]
	if p == nil {
		p = &Port{TLS: tls}
		o.Ports[number] = p
	}
	return p
}

// target finds a port of a Service, and what is ready behind it. The error says what does not exist.
func (w *World) target(namespace, service string, name string, number int32) (Backend, error) {
	s := w.Services[namespace+"/"+service]
	if s == nil {
		return Backend{}, fmt.Errorf("service %s/%s does not exist", namespace, service)
	}
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return name != "" && p.Name == name || name == "" && p.Port == number })
	if i < 0 {
		wanted := name
		if wanted == "" {
			wanted = strconv.Itoa(int(number))
		}
		return Backend{}, fmt.Errorf("service %s/%s has no port %s", namespace, service, wanted)
	}
	port := s.Spec.Ports[i]
	b := Backend{Weight: 1, H2C: port.AppProtocol != nil && *port.AppProtocol == "kubernetes.io/h2c"}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		b.Addresses = []string{net.JoinHostPort(s.Spec.ExternalName, strconv.Itoa(int(port.Port)))}
		return b, nil
	}
	for _, slice := range w.Slices[namespace+"/"+service] {
		b.Addresses = append(b.Addresses, ready(slice, port.Name)...)
	}
	slices.Sort(b.Addresses)
	b.Addresses = slices.Compact(b.Addresses)
	return b, nil
}

func ready(slice *discoveryv1.EndpointSlice, port string) []string {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var out []string
	for _, p := range slice.Ports {
		if p.Port == nil || p.Name == nil && port != "" || p.Name != nil && *p.Name != port {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				out = append(out, net.JoinHostPort(a, strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}

// ours says whether we serve an Ingress: by its class, or because it has none and ours is the default one.
func (w *World) ours(i *networkingv1.Ingress) bool {
	name := i.Annotations["kubernetes.io/ingress.class"]
	if i.Spec.IngressClassName != nil {
		name = *i.Spec.IngressClassName
	}
	for _, c := range w.IngressClasses {
		if c.Spec.Controller == IngressController && (c.Name == name || name == "" && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true") {
			return true
		}
	}
	return false
}

// ingresses adds the rules of all Ingresses: on port 80, and 443 with their certificates.
func (w *World) ingresses(o *Outcome) {
	for _, i := range w.Ingresses {
		if i.DeletionTimestamp != nil || !w.ours(i) {
			continue
		}
		o.Ingresses = append(o.Ingresses, i)
		plain, secure := o.port(80, false), o.port(443, true)
		for _, r := range w.ingressRules(i) {
			plain.add(r)
			secure.add(r)
		}
		for _, t := range i.Spec.TLS {
			pair, err := w.Pair(i.Namespace, t.SecretName)
			if err != nil {
				continue // clients see our own certificate until there is one
			}
			hosts := t.Hosts
			if len(hosts) == 0 {
				hosts = []string{""}
			}
			for _, h := range hosts {
				secure.Certs = append(secure.Certs, Cert{Host: strings.ToLower(h), Pair: pair})
			}
		}
	}
}

func (w *World) ingressRules(i *networkingv1.Ingress) []*Rule {
	var rules []*Rule
	add := func(host, path string, exact bool, backend *networkingv1.IngressBackend) {
		r := &Rule{Host: strings.ToLower(host), OneLabel: true, Path: path, Exact: exact, created: i.CreationTimestamp.Time, name: i.Namespace + "/" + i.Name, order: len(rules)}
		r.Status = 503
		if backend != nil && backend.Service != nil {
			b, err := w.target(i.Namespace, backend.Service.Name, backend.Service.Port.Name, backend.Service.Port.Number)
			if err == nil {
				r.Status, r.Backends = 0, []Backend{b}
			}
		}
		rules = append(rules, r)
	}
	for _, rule := range i.Spec.Rules {
		if rule.HTTP == nil {
			add(rule.Host, "", false, i.Spec.DefaultBackend)
			continue
		}
		for _, p := range rule.HTTP.Paths {
			add(rule.Host, p.Path, p.PathType != nil && *p.PathType == networkingv1.PathTypeExact, &p.Backend)
		}
	}
	if i.Spec.DefaultBackend != nil {
		add("", "", false, i.Spec.DefaultBackend)
	}
	return rules
}
