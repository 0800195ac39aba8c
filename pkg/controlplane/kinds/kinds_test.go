package kinds

import (
	"context"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/conversion"
)

func TestChecks(t *testing.T) {
	kinds, err := conversion.NewRegistry([]conversion.Kind{{Group: "example.com", Kind: "Lamp", Versions: []string{"v1"},
		Check: func(obj, _ *unstructured.Unstructured) conversion.Verdict {
			return conversion.Verdict{Errors: field.ErrorList{field.Required(field.NewPath("spec", "colour"), "say which")}}
		}}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(kind, subresource string) error {
		gvk := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: kind}
		obj := &unstructured.Unstructured{}
		obj.SetGroupVersionKind(gvk)
		return newChecks(kinds).Validate(context.Background(), admission.NewAttributesRecord(obj, nil, gvk, "n", "a",
			gvk.GroupVersion().WithResource("lamps"), subresource, admission.Create, nil, false, nil), nil)
	}
	if err := check("Lamp", ""); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.colour: Required value: say which") {
		t.Error(err)
	}
	if err := check("Lamp", "status"); err != nil {
		t.Error(err)
	}
	if err := check("Door", ""); err != nil {
		t.Error(err)
	}
	asked := ""
	wrapper := ConvertHere(kinds, func(webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
		return &webhook.AuthenticationInfoResolverDelegator{ClientConfigForFunc: func(h string) (*rest.Config, error) {
			asked = h
			return &rest.Config{}, nil
		}}
	})(nil)
	ours, err := wrapper.ClientConfigFor(conversion.Host + ":443")
	if err != nil || asked != "" || ours.WrapTransport == nil || ours.WrapTransport(nil) != kinds {
		t.Errorf("%+v, %v", ours, err)
	}
	if _, err := wrapper.ClientConfigFor("example.com:443"); err != nil || asked != "example.com:443" {
		t.Error("other webhooks are not called")
	}
}
