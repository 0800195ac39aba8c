package rules

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/dynamic"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/rules/plan"
)

// lookTimeout bounds how long a write of a rule waits for what it names.
const lookTimeout = 5 * time.Second

// Kinds are the kinds of rules, for an API server to check. kubeconfig is of a user who may read them; it is used when the first rule is
// written.
func Kinds(kubeconfig string) []conversion.Kind {
	j := judge{client: sync.OnceValues(func() (dynamic.Interface, error) {
		rest, err := kube.Config(kubeconfig, "rules")
		if err != nil {
			return nil, err
		}
		return dynamic.NewForConfig(rest)
	})}
	return []conversion.Kind{
		{Group: v1.Group, Kind: "RuleEndpoint", Versions: []string{v1.Version}, Check: j.endpoint},
		{Group: v1.Group, Kind: "Rule", Versions: []string{v1.Version}, Check: j.rule},
	}
}

// judge says what is wrong with objects that somebody writes.
type judge struct {
	client func() (dynamic.Interface, error)
}

func (judge) endpoint(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	e := &v1.RuleEndpoint{}
	if err := decode(obj, e); err != nil {
		return broken(err)
	}
	v.Errors = plan.CheckEndpoint(e)
	return v
}

// rule refuses what can never work. An endpoint that is not there yet is only warned of: objects may come in any order.
func (j judge) rule(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	r := &v1.Rule{}
	if err := decode(obj, r); err != nil {
		return broken(err)
	}
	ends := [2]*v1.RuleEndpoint{}
	for i, name := range []string{r.Spec.Source, r.Spec.Target} {
		e, err := j.look(r.Namespace, name)
		if err != nil {
			return broken(fmt.Errorf("look at its endpoints: %w", err))
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
			return broken(fmt.Errorf("look at other rules: %w", err))
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
	client, err := j.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	live, err := client.Resource(v1.RuleEndpoints()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || name == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := &v1.RuleEndpoint{}
	return e, decode(live, e)
}

// conflict returns the key of a rule of the namespace with the same source, or "".
func (j judge) conflict(r *v1.Rule, route plan.Route) (string, error) {
	client, err := j.client()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	list, err := client.Resource(v1.Rules()).Namespace(r.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", err
	}
	known, err := client.Resource(v1.RuleEndpoints()).Namespace(r.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", err
	}
	var others []*v1.Rule
	var endpoints []*v1.RuleEndpoint
	for i := range list.Items {
		other := &v1.Rule{}
		if err := decode(&list.Items[i], other); err == nil && other.Name != r.Name {
			others = append(others, other)
		}
	}
	for i := range known.Items {
		e := &v1.RuleEndpoint{}
		if err := decode(&known.Items[i], e); err == nil {
			endpoints = append(endpoints, e)
		}
	}
	routes, _ := plan.Compile(endpoints, others)
	return plan.Conflict(route, routes), nil
}

func decode(obj *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into)
}

func broken(err error) conversion.Verdict {
	return conversion.Verdict{Errors: field.ErrorList{field.Invalid(field.NewPath("spec"), "", err.Error())}}
}
