// Package kinds lets the API server convert and check kedge's own custom resources in its own process: a transport for conversion
// webhooks that ends here, and an admission plugin. Only controlplane imports it.
package kinds

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/kubeapiserver/options"

	"github.com/kedge-io/kedge/pkg/conversion"
)

// plugin is the name under which --disable-admission-plugins finds the checks of kedge's own kinds.
const plugin = "KedgeKinds"

// ConvertHere wraps a resolver of webhook connections: it answers conversion of kedge's own kinds in this process; other conversion webhooks are called as ever.
func ConvertHere(kinds *conversion.Registry, next webhook.AuthenticationInfoResolverWrapper) webhook.AuthenticationInfoResolverWrapper {
	if kinds == nil {
		return next
	}
	here := net.JoinHostPort(conversion.Host, "443")
	return func(delegate webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
		outer := next(delegate)
		return &webhook.AuthenticationInfoResolverDelegator{
			ClientConfigForFunc: func(hostPort string) (*rest.Config, error) {
				if hostPort == here {
					return &rest.Config{WrapTransport: func(http.RoundTripper) http.RoundTripper { return kinds }}, nil
				}
				return outer.ClientConfigFor(hostPort)
			},
			ClientConfigForServiceFunc: outer.ClientConfigForService,
		}
	}
}

// Admit adds the checks of kinds to the admission plugins of an API server that is not started yet.
func Admit(o *options.AdmissionOptions, kinds *conversion.Registry) {
	if kinds != nil {
		AddPlugin(o, plugin, newChecks(kinds))
	}
}

// AddPlugin puts an admission plugin of ours behind those of Kubernetes; it is on unless the user switches it off by name.
func AddPlugin(o *options.AdmissionOptions, name string, plugin admission.Interface) {
	o.GenericAdmission.Plugins.Register(name, func(io.Reader) (admission.Interface, error) { return plugin, nil })
	// The slice is a variable of Kubernetes: a copy is extended.
	o.GenericAdmission.RecommendedPluginOrder = append(slices.Clone(o.GenericAdmission.RecommendedPluginOrder), name)
}

// checks is the admission plugin that asks the owners of kedge's own kinds.
type checks struct {
	*admission.Handler
	kinds *conversion.Registry
}

func newChecks(kinds *conversion.Registry) *checks {
	return &checks{Handler: admission.NewHandler(admission.Create, admission.Update), kinds: kinds}
}

// Validate implements admission.ValidationInterface. Status and other subresources are written by controllers and not asked about,
// nor is an object that is going away.
func (k *checks) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	gk := a.GetKind().GroupKind()
	if a.GetSubresource() != "" || !k.kinds.Knows(gk) {
		return nil
	}
	obj, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || obj.GetDeletionTimestamp() != nil {
		return nil
	}
	old, _ := a.GetOldObject().(*unstructured.Unstructured)
	verdict := k.kinds.Check(obj, old)
	for _, w := range verdict.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	if len(verdict.Errors) > 0 {
		return apierrors.NewInvalid(gk, a.GetName(), verdict.Errors)
	}
	return nil
}
