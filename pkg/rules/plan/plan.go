// Package plan says what rules mean: which are in order, which one a request or a message is for, and where it goes. It is pure. Rooms of
// rules import it.
package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
)

// Route is one rule that is in order.
type Route struct {
	Namespace, Name string
	// Source and Target are types of endpoints.
	Source, Target string

	path []string // of a request to the server; {name} stands for any segment
	// Node is where messages of a bus come from, and Filter their topic.
	Node, Filter string
	// TargetURL is what programs on the node ask the servicebus for.
	TargetURL string

	// URL is where messages go.
	URL string
	// Topic is that on the bus of a node.
	Topic string
	// Port and Path are those of a service on a node.
	Port int
	Path string
}

// Key is namespace/name.
func (r Route) Key() string { return r.Namespace + "/" + r.Name }

// Problem is a rule that does not work.
type Problem struct {
	Rule   string // namespace/name
	Reason string
}

// Compile returns the rules that work, by key, and why others do not. Of two rules with the same source the older one works.
func Compile(endpoints []*v1.RuleEndpoint, rules []*v1.Rule) (routes []Route, problems []Problem) {
	known := map[string]*v1.RuleEndpoint{}
	for _, e := range endpoints {
		known[e.Namespace+"/"+e.Name] = e
	}
	rules = slices.Clone(rules)
	slices.SortFunc(rules, older)
	taken := map[string]string{}
	for _, r := range rules {
		source, target := known[r.Namespace+"/"+r.Spec.Source], known[r.Namespace+"/"+r.Spec.Target]
		route, errs := Resolve(r, source, target)
		if by, twice := taken[route.source()]; len(errs) == 0 && twice {
			errs = append(errs, field.Duplicate(field.NewPath("spec", "sourceResource"), "rule "+by+" has the same"))
		}
		if len(errs) > 0 {
			problems = append(problems, Problem{r.Namespace + "/" + r.Name, errs.ToAggregate().Error()})
			continue
		}
		taken[route.source()] = route.Key()
		routes = append(routes, route)
	}
	slices.SortFunc(routes, func(a, b Route) int { return cmp.Compare(a.Key(), b.Key()) })
	return routes, problems
}

func older(a, b *v1.Rule) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// source identifies what a rule listens to.
func (r Route) source() string {
	switch r.Source {
	case v1.Rest:
		return fmt.Sprintf("rest %s %q", r.Namespace, anonymous(r.path))
	case v1.EventBus:
		return fmt.Sprintf("eventbus %s %q", r.Node, r.Filter)
	}
	return fmt.Sprintf("servicebus %s %q", r.Node, r.TargetURL)
}

// Conflict returns the key of another rule of others that has the source of this one, or "".
func Conflict(route Route, others []Route) string {
	for _, o := range others {
		if o.Key() != route.Key() && o.source() == route.source() {
			return o.Key()
		}
	}
	return ""
}

// Find returns the rule with a key.
func Find(routes []Route, key string) (Route, bool) {
	i, ok := slices.BinarySearchFunc(routes, key, func(r Route, key string) int { return cmp.Compare(r.Key(), key) })
	if !ok {
		return Route{}, false
	}
	return routes[i], true
}
