package rules

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/rules/plan"
)

// Kinds are the kinds of rules, for an API server to check. kubeconfig is of a user who may read them; it is used when the first rule is
// written.
func Kinds(kubeconfig string) []conversion.Kind {
	j := judge{kube.NewLookup(kubeconfig, "rules")}
	return []conversion.Kind{
		{Group: v1.Group, Kind: "RuleEndpoint", Versions: []string{v1.Version}, Check: j.endpoint},
		{Group: v1.Group, Kind: "Rule", Versions: []string{v1.Version}, Check: j.rule},
	}
}

// judge says what is wrong with objects that somebody writes.
type judge struct {
	api kube.Lookup
}

func (judge) endpoint(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	e := &v1.RuleEndpoint{}
	if err := decode(obj, e); err != nil {
		return conversion.Refuse(err)
	}
	v.Errors = plan.CheckEndpoint(e)
	return v
}

// rule refuses what can never work. An endpoint that is not there yet is only warned of: objects may come in any order.
func (j judge) rule(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	r := &v1.Rule{}
	if err := decode(obj, r); err != nil {
		return conversion.Refuse(err)
	}
	ends := [2]*v1.RuleEndpoint{}
	for i, name := range []string{r.Spec.Source, r.Spec.Target} {
		e, err := j.look(r.Namespace, name)
		if err != nil {
			return conversion.Refuse(fmt.Errorf("look at its endpoints: %w", err))
		}
		ends[i] = e
	}
	route, errs := plan.Resolve(r, ends[0], ends[1])
	if ends[0] == nil || ends[1] == nil {
		for _, err := range errs {
			v.Warnings = append(v.Warnings, err.Error()+"; the rule works from when it is there")
		}
		return v
	}
	if len(errs) == 0 {
		by, err := j.conflict(r, route)
		if err != nil {
			return conversion.Refuse(fmt.Errorf("look at other rules: %w", err))
		}
		if by != "" {
			errs = append(errs, field.Forbidden(field.NewPath("spec", "sourceResource"), "rule "+by+" has the same source"))
		}
	}
	v.Errors = errs
	return v
}

// look returns an endpoint, or nil when there is none.
func (j judge) look(namespace, name string) (*v1.RuleEndpoint, error) {
	live, err := j.api.Get(v1.RuleEndpoints(), namespace, name)
	if err != nil || live == nil {
		return nil, err
	}
	e := &v1.RuleEndpoint{}
	return e, decode(live, e)
}

// conflict returns the key of a rule of the namespace with the same source, or "".
func (j judge) conflict(r *v1.Rule, route plan.Route) (string, error) {
	rules, err := j.api.List(v1.Rules(), r.Namespace)
	if err != nil {
		return "", err
	}
	known, err := j.api.List(v1.RuleEndpoints(), r.Namespace)
	if err != nil {
		return "", err
	}
	var others []*v1.Rule
	var endpoints []*v1.RuleEndpoint
	for i := range rules {
		other := &v1.Rule{}
		if err := decode(&rules[i], other); err == nil && other.Name != r.Name {
			others = append(others, other)
		}
	}
	for i := range known {
		e := &v1.RuleEndpoint{}
		if err := decode(&known[i], e); err == nil {
			endpoints = append(endpoints, e)
		}
	}
	routes, _ := plan.Compile(endpoints, others)
	return plan.Conflict(route, routes), nil
}

func decode(obj *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into)
}
