// Package route decides where a request goes: it turns Ingress, Gateway and HTTPRoute objects into a table for each port, and looks
// requests up in it. It is pure: objects in, tables and statuses out. Only ingress imports it.
package route

import (
	"cmp"
	"crypto/tls"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Port is what is served on one TCP port.
type Port struct {
	// TLS says whether clients speak HTTPS.
	TLS   bool
	Certs []Cert
	exact map[string][]*Rule // by host, best first
	rest  []*Rule            // of wildcards and of no host, best first
}

// Cert is a certificate and the hosts it is for: a name, *.name, or empty for all.
type Cert struct {
	Host string
	Pair *tls.Certificate
}

// Rule says what happens to requests that match it. Empty fields match everything.
type Rule struct {
	// Host is a name or *.name; OneLabel limits the star to one label, as Ingress does.
	Host     string
	OneLabel bool
	// Path is compared whole if Exact, else by its elements.
	Path    string
	Exact   bool
	Method  string
	Headers []Pair
	Query   []Pair
	Action

	created time.Time
	name    string // namespace/name of the object
	order   int    // in the object
}

// Pair is a header or query parameter and the value it must have.
type Pair struct{ Name, Value string }

// Action is what is done with a request.
type Action struct {
	// Status answers without asking a backend, when it is not 0.
	Status   int
	Redirect *Redirect
	Rewrite  *Rewrite
	// Request and Response change headers.
	Request, Response []Header
	// Timeout is of the whole request; 0 for none.
	Timeout  time.Duration
	Backends []Backend
}

// Header is one change: set, add, or remove when Value is empty and Remove is true.
type Header struct {
	Name, Value string
	Add, Remove bool
}

// Redirect sends the client elsewhere; empty fields stay as they are.
type Redirect struct {
	Scheme, Host string
	Port         int
	Path         *PathChange
	Code         int
}

// Rewrite changes what the backend sees.
type Rewrite struct {
	Host string
	Path *PathChange
}

// PathChange replaces the path, or the prefix that matched.
type PathChange struct {
	Value  string
	Prefix bool
}

// Backend is a Service with its share of the requests.
type Backend struct {
	Weight    int
	Addresses []string // host:port of what is ready
	H2C       bool     // speaks HTTP/2 without TLS
	Broken    bool     // the reference leads nowhere: its share of the requests fails
	// Request and Response change headers for this backend only.
	Request, Response []Header
}

// Apply returns the path after the change; matched is the prefix that the rule matched.
func (c *PathChange) Apply(path, matched string) string {
	if !c.Prefix {
		return c.Value
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(path, strings.TrimSuffix(matched, "/")), "/")
	out := strings.TrimSuffix(c.Value, "/")
	if rest != "" || out == "" {
		out += "/" + rest
	}
	return out
}

// Pick chooses a backend by weight, and one of its addresses; the second result is empty when nothing is ready there.
func (a *Action) Pick() (*Backend, string) {
	total := 0
	for _, b := range a.Backends {
		total += b.Weight
	}
	if total == 0 {
		return nil, ""
	}
	n := rand.IntN(total)
	for i := range a.Backends {
		b := &a.Backends[i]
		if n -= b.Weight; n >= 0 {
			continue
		}
		if len(b.Addresses) == 0 {
			return b, ""
		}
		return b, b.Addresses[rand.IntN(len(b.Addresses))]
	}
	return nil, ""
}

// add puts a rule into the table; arrange must follow.
func (p *Port) add(r *Rule) {
	if r.Host == "" || strings.HasPrefix(r.Host, "*.") {
		p.rest = append(p.rest, r)
		return
	}
	if p.exact == nil {
		p.exact = map[string][]*Rule{}
	}
	p.exact[r.Host] = append(p.exact[r.Host], r)
}

// arrange brings the best rules to the front: the longer host, the exact path, the longer path, then method, headers, query, age, name.
func (p *Port) arrange() {
	better := func(a, b *Rule) int {
		return cmp.Or(
			cmp.Compare(len(b.Host), len(a.Host)), flag(b.Exact, a.Exact), cmp.Compare(len(b.Path), len(a.Path)),
			flag(b.Method != "", a.Method != ""), cmp.Compare(len(b.Headers), len(a.Headers)), cmp.Compare(len(b.Query), len(a.Query)),
			a.created.Compare(b.created), cmp.Compare(a.name, b.name), cmp.Compare(a.order, b.order))
	}
	for _, rules := range p.exact {
		slices.SortStableFunc(rules, better)
	}
	slices.SortStableFunc(p.rest, better)
}

func flag(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Match returns the rule for a request, or nil.
func (p *Port) Match(r *http.Request) *Rule {
	host := Host(r.Host)
	for _, rules := range [][]*Rule{p.exact[host], p.rest} {
		for _, rule := range rules {
			if rule.matches(host, r) {
				return rule
			}
		}
	}
	return nil
}

func (r *Rule) matches(host string, req *http.Request) bool {
	if !hostMatches(r.Host, host, r.OneLabel) || !r.pathMatches(req.URL.Path) || r.Method != "" && r.Method != req.Method {
		return false
	}
	for _, h := range r.Headers {
		if !slices.Contains(req.Header.Values(h.Name), h.Value) {
			return false
		}
	}
	if len(r.Query) > 0 {
		query := req.URL.Query()
		for _, q := range r.Query {
			if !query.Has(q.Name) || query.Get(q.Name) != q.Value {
				return false
			}
		}
	}
	return true
}

func (r *Rule) pathMatches(path string) bool {
	if r.Exact {
		return path == r.Path
	}
	prefix := strings.TrimSuffix(r.Path, "/")
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

func hostMatches(pattern, host string, oneLabel bool) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	switch {
	case pattern == "":
		return true
	case !wild:
		return pattern == host
	}
	label, ok := strings.CutSuffix(host, suffix)
	return ok && label != "" && (!oneLabel || !strings.Contains(label, "."))
}

// Host is the host name of a Host header: in lower case, without port and final dot.
func Host(header string) string {
	host := header
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// Cert returns the certificate for a server name, or nil.
func (p *Port) Cert(name string) *tls.Certificate {
	name = Host(name)
	var best *Cert
	for i := range p.Certs {
		c := &p.Certs[i]
		if hostMatches(c.Host, name, true) && (best == nil || len(c.Host) > len(best.Host) || strings.HasPrefix(best.Host, "*") && c.Host == name) {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	return best.Pair
}
