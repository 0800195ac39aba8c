package route

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// attach adds the rules of a route to the listeners that it names, and notes how that went.
func (w *World) attach(o *Outcome, r *gatewayv1.HTTPRoute, listeners map[string][]*listener) {
	rules, unsupported, unresolved := w.routeRules(r)
	for _, parent := range r.Spec.ParentRefs {
		namespace := r.Namespace
		if parent.Namespace != nil {
			namespace = string(*parent.Namespace)
		}
		if parent.Kind != nil && *parent.Kind != "Gateway" || parent.Group != nil && *parent.Group != gatewayv1.GroupName {
			continue
		}
		ls, ours := listeners[namespace+"/"+string(parent.Name)]
		if !ours {
			continue
		}
		accepted := cond("Accepted", true, "Accepted", "", r.Generation)
		if unsupported != "" {
			accepted = cond("Accepted", false, "UnsupportedValue", unsupported, r.Generation)
		} else if reason, message := w.bind(r, parent, ls, rules); reason != "" {
			accepted = cond("Accepted", false, reason, message, r.Generation)
		}
		refs := cond("ResolvedRefs", true, "ResolvedRefs", "", r.Generation)
		if unresolved != nil {
			refs = cond("ResolvedRefs", false, unresolved.reason, unresolved.message, r.Generation)
		}
		o.Routes[key(r)] = append(o.Routes[key(r)], gatewayv1.RouteParentStatus{
			ParentRef: parent, ControllerName: GatewayController, Conditions: []metav1.Condition{accepted, refs},
		})
	}
}

// bind adds rules to each listener that the parent reference means, or says why there is none.
func (w *World) bind(r *gatewayv1.HTTPRoute, parent gatewayv1.ParentReference, ls []*listener, rules []*Rule) (reason, message string) {
	reason, message = "NoMatchingParent", "the Gateway has no such listener"
	for _, l := range ls {
		if parent.SectionName != nil && *parent.SectionName != l.spec.Name || parent.Port != nil && *parent.Port != l.spec.Port {
			continue
		}
		if !w.allows(l, r.Namespace) {
			if reason != "" {
				reason, message = "NotAllowedByListeners", "no listener lets routes of namespace "+r.Namespace+" attach"
			}
			continue
		}
		hosts := common(l.hostname, r.Spec.Hostnames)
		if len(hosts) == 0 {
			if reason == "NoMatchingParent" {
				reason, message = "NoMatchingListenerHostname", "no host name of the route is one of the listener's"
			}
			continue
		}
		reason, message = "", ""
		l.status.AttachedRoutes++
		if l.port == nil {
			continue
		}
		for _, host := range hosts {
			for _, rule := range rules {
				one := *rule
				one.Host = host
				l.port.add(&one)
			}
		}
	}
	return reason, message
}

// common returns the hosts that both a listener and a route name.
func common(listener string, route []gatewayv1.Hostname) []string {
	if len(route) == 0 {
		return []string{listener}
	}
	var out []string
	for _, h := range route {
		host := strings.ToLower(string(h))
		switch {
		case listener == "" || host == listener || hostMatches(listener, strings.TrimPrefix(host, "*."), false) && host != "":
			out = append(out, host)
		case strings.HasPrefix(host, "*.") && hostMatches(host, strings.TrimPrefix(listener, "*."), false):
			out = append(out, listener)
		}
	}
	return out
}

// problem is why a reference leads nowhere.
type problem struct{ reason, message string }

// routeRules makes the rules of a route, without hosts. unsupported names what we cannot do.
func (w *World) routeRules(r *gatewayv1.HTTPRoute) (rules []*Rule, unsupported string, unresolved *problem) {
	for n, spec := range r.Spec.Rules {
		action, bad := actionOf(spec)
		if bad != "" {
			return nil, fmt.Sprintf("rules[%d].%s", n, bad), nil
		}
		if action.Redirect == nil {
			backends, p, bad := w.backends(r, spec.BackendRefs)
			if bad != "" {
				return nil, fmt.Sprintf("rules[%d].%s", n, bad), nil
			}
			if action.Backends = backends; p != nil {
				unresolved = p
			}
			if len(backends) == 0 {
				action.Status = http.StatusInternalServerError
			}
		}
		matches := spec.Matches
		if len(matches) == 0 {
			matches = []gatewayv1.HTTPRouteMatch{{}}
		}
		for m, match := range matches {
			rule, bad := ruleOf(match)
			if bad != "" {
				return nil, fmt.Sprintf("rules[%d].matches[%d].%s", n, m, bad), nil
			}
			rule.Action, rule.created, rule.name, rule.order = action, r.CreationTimestamp.Time, key(r), len(rules)
			rules = append(rules, rule)
		}
	}
	return rules, "", unresolved
}

// ruleOf turns a match into a rule; the second result names what we cannot match.
func ruleOf(m gatewayv1.HTTPRouteMatch) (*Rule, string) {
	r := &Rule{Path: "/"}
	if p := m.Path; p != nil {
		if p.Value != nil {
			r.Path = *p.Value
		}
		if p.Type != nil {
			switch *p.Type {
			case gatewayv1.PathMatchExact:
				r.Exact = true
			case gatewayv1.PathMatchPathPrefix:
			default:
				return nil, "path.type: " + string(*p.Type) + " is not supported"
			}
		}
	}
	if m.Method != nil {
		r.Method = string(*m.Method)
	}
	for _, h := range m.Headers {
		if h.Type != nil && *h.Type != gatewayv1.HeaderMatchExact {
			return nil, "headers.type: " + string(*h.Type) + " is not supported"
		}
		r.Headers = append(r.Headers, Pair{string(h.Name), h.Value})
	}
	for _, q := range m.QueryParams {
		if q.Type != nil && *q.Type != gatewayv1.QueryParamMatchExact {
			return nil, "queryParams.type: " + string(*q.Type) + " is not supported"
		}
		r.Query = append(r.Query, Pair{string(q.Name), q.Value})
	}
	return r, ""
}

// actionOf reads filters and timeouts; the second result names what we cannot do.
func actionOf(spec gatewayv1.HTTPRouteRule) (Action, string) {
	a := Action{}
	for i, f := range spec.Filters {
		switch {
		case f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			a.Request = append(a.Request, headers(f.RequestHeaderModifier)...)
		case f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			a.Response = append(a.Response, headers(f.ResponseHeaderModifier)...)
		case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
			a.Redirect = redirect(f.RequestRedirect)
		case f.Type == gatewayv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
			a.Rewrite = &Rewrite{Path: pathChange(f.URLRewrite.Path)}
			if f.URLRewrite.Hostname != nil {
				a.Rewrite.Host = string(*f.URLRewrite.Hostname)
			}
		default:
			return a, fmt.Sprintf("filters[%d].type: %s is not supported", i, f.Type)
		}
	}
	if t := spec.Timeouts; t != nil {
		for _, d := range []*gatewayv1.Duration{t.BackendRequest, t.Request} {
			if d == nil {
				continue
			}
			span, err := time.ParseDuration(string(*d))
			if err != nil {
				return a, "timeouts: " + err.Error()
			}
			if span > 0 && (a.Timeout == 0 || span < a.Timeout) {
				a.Timeout = span
			}
		}
	}
	if spec.SessionPersistence != nil || spec.Retry != nil {
		return a, "retry and sessionPersistence are not supported"
	}
	return a, ""
}

func headers(f *gatewayv1.HTTPHeaderFilter) []Header {
	var out []Header
	for _, h := range f.Set {
		out = append(out, Header{Name: string(h.Name), Value: h.Value})
	}
	for _, h := range f.Add {
		out = append(out, Header{Name: string(h.Name), Value: h.Value, Add: true})
	}
	for _, name := range f.Remove {
		out = append(out, Header{Name: name, Remove: true})
	}
	return out
}

func redirect(f *gatewayv1.HTTPRequestRedirectFilter) *Redirect {
	r := &Redirect{Code: http.StatusFound, Path: pathChange(f.Path)}
	if f.Scheme != nil {
		r.Scheme = *f.Scheme
	}
	if f.Hostname != nil {
		r.Host = string(*f.Hostname)
	}
	if f.Port != nil {
		r.Port = int(*f.Port)
	}
	if f.StatusCode != nil {
		r.Code = *f.StatusCode
	}
	return r
}

func pathChange(p *gatewayv1.HTTPPathModifier) *PathChange {
	switch {
	case p == nil:
		return nil
	case p.ReplaceFullPath != nil:
		return &PathChange{Value: *p.ReplaceFullPath}
	case p.ReplacePrefixMatch != nil:
		return &PathChange{Value: *p.ReplacePrefixMatch, Prefix: true}
	}
	return nil
}

// backends resolves the references of a rule. One that leads nowhere keeps its share of the requests, which fail.
func (w *World) backends(r *gatewayv1.HTTPRoute, refs []gatewayv1.HTTPBackendRef) (out []Backend, unresolved *problem, unsupported string) {
	for i, ref := range refs {
		b, p := w.backend(r, ref)
		if p != nil {
			unresolved, b.Broken = p, true
		}
		b.Weight = 1
		if ref.Weight != nil {
			b.Weight = int(*ref.Weight)
		}
		for _, f := range ref.Filters {
			switch {
			case f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
				b.Request = append(b.Request, headers(f.RequestHeaderModifier)...)
			case f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
				b.Response = append(b.Response, headers(f.ResponseHeaderModifier)...)
			default:
				return nil, nil, fmt.Sprintf("backendRefs[%d].filters: %s is not supported", i, f.Type)
			}
		}
		out = append(out, b)
	}
	return out, unresolved, ""
}

func (w *World) backend(r *gatewayv1.HTTPRoute, ref gatewayv1.HTTPBackendRef) (Backend, *problem) {
	namespace := r.Namespace
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	switch {
	case ref.Kind != nil && *ref.Kind != "Service" || ref.Group != nil && *ref.Group != "":
		return Backend{}, &problem{"InvalidKind", fmt.Sprintf("backend %s is not a Service", ref.Name)}
	case !w.granted("HTTPRoute", r.Namespace, "Service", namespace, string(ref.Name)):
		return Backend{}, &problem{"RefNotPermitted", fmt.Sprintf("no ReferenceGrant in namespace %s lets HTTPRoutes of %s use service %s", namespace, r.Namespace, ref.Name)}
	case ref.Port == nil:
		return Backend{}, &problem{"BackendNotFound", fmt.Sprintf("backend %s has no port", ref.Name)}
	}
	b, err := w.target(namespace, string(ref.Name), "", *ref.Port)
	if err != nil {
		return Backend{}, &problem{"BackendNotFound", err.Error()}
	}
	return b, nil
}
