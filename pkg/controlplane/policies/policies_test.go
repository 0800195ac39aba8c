package policies_test

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/test/plane"
)

// policy is one for a resource, with one expression.
func policy(name, group, version, resource, expression string) *admissionv1.ValidatingAdmissionPolicy {
	return &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}},
			}}}},
			Validations: []admissionv1.Validation{{Expression: expression}},
		},
	}
}

// TestTypesAreChecked has expressions about a built-in kind and about a custom one, right and wrong.
func TestTypesAreChecked(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	cfg, err := kube.Config(plane.Start(t).Kubeconfig, "test")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	plane.Await(t, "the definition of NodeUnit", func() bool { // a custom kind has one a moment after it is there
		data, err := client.Discovery().RESTClient().Get().AbsPath("/openapi/v3/apis/site.superedge.io/v1alpha2").DoRaw(t.Context())
		return err == nil && strings.Contains(string(data), `"NodeUnit"`)
	})
	policies := client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	for _, c := range []struct {
		policy *admissionv1.ValidatingAdmissionPolicy
		want   string // in the warning
	}{
		{policy("deployment", "apps", "v1", "deployments", "object.spec.replicas > 1"), ""},
		{policy("deployment-wrong", "apps", "v1", "deployments", "object.spec.replicas > '1'"), "no matching overload"},
		{policy("unit", "site.superedge.io", "v1alpha2", "nodeunits", "object.spec.type == 'edge'"), ""},
		{policy("unit-wrong", "site.superedge.io", "v1alpha2", "nodeunits", "object.spec.colour == 'red'"), "undefined field 'colour'"},
	} {
		if _, err := policies.Create(t.Context(), c.policy, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		var status admissionv1.ValidatingAdmissionPolicyStatus
		plane.Await(t, "the status of "+c.policy.Name, func() bool {
			p, err := policies.Get(t.Context(), c.policy.Name, metav1.GetOptions{})
			if err != nil || p.Status.TypeChecking == nil {
				return false
			}
			status = p.Status
			return true
		})
		warnings := status.TypeChecking.ExpressionWarnings
		if c.want == "" && len(warnings) != 0 {
			t.Errorf("%s: %v", c.policy.Name, warnings)
		}
		if c.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].Warning, c.want)) {
			t.Errorf("%s: %v, want %q", c.policy.Name, warnings, c.want)
		}
	}
}
