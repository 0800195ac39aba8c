// Package policies checks the types in expressions of ValidatingAdmissionPolicies and writes the warnings to their status, with
// the controller that kube-controller-manager has for it. There it keeps the definitions of all built-in types, 6 MB, whether or not
// there is a policy; here it asks the API server for a schema when it checks one. Only controlplane imports this package.
package policies

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/kedge-io/kedge/pkg/kube"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
)

// Name is what kube-controller-manager knows the controller by.
const Name = names.ValidatingAdmissionPolicyStatusController

const (
	workers = 2
	// forget is how often kinds are looked up anew, as in kube-controller-manager.
	forget = 30 * time.Second
)

// Checker is the controller, prepared and not started.
type Checker struct {
	informers  informers.SharedInformerFactory
	mapper     *restmapper.DeferredDiscoveryRESTMapper
	controller *validatingadmissionpolicystatus.Controller
}

// New reads the kubeconfig of an administrator; the controller itself acts as the service account that has its role.
func New(kubeconfig string) (*Checker, error) {
	cfg, err := kube.Config(kubeconfig, Name)
	if err != nil {
		return nil, err
	}
	cfg.Impersonate = rest.ImpersonationConfig{UserName: serviceaccount.MakeUsername("kube-system", Name)}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	c := &Checker{
		informers: informers.NewSharedInformerFactory(client, 0),
		mapper:    restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
	}
	c.controller, err = validatingadmissionpolicystatus.NewController(
		c.informers.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		client.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		&validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: client.Discovery()}, RestMapper: c.mapper},
	)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", Name, err)
	}
	return c, nil
}

// Run works until ctx is done.
func (c *Checker) Run(ctx context.Context) {
	c.informers.StartWithContext(ctx)
	go wait.UntilWithContext(ctx, func(context.Context) { c.mapper.Reset() }, forget)
	c.controller.Run(ctx, workers)
}
