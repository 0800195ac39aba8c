// Package controlplane runs kube-apiserver, kube-controller-manager and kube-scheduler in this
// process, through the exported layers below their commands. Only server imports it; with kubelet
// and network it is one of the three packages that may import k8s.io/kubernetes.
package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	encryptioncontroller "k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/apiserver/pkg/util/webhook"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"

	"github.com/kedge-io/kedge/pkg/controlplane/backend"
	"github.com/kedge-io/kedge/pkg/controlplane/evictions"
	"github.com/kedge-io/kedge/pkg/controlplane/history"
	"github.com/kedge-io/kedge/pkg/controlplane/kinds"
	"github.com/kedge-io/kedge/pkg/controlplane/localapi"
	"github.com/kedge-io/kedge/pkg/controlplane/openapi"
	"github.com/kedge-io/kedge/pkg/controlplane/serving"
	"github.com/kedge-io/kedge/pkg/conversion"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/client-go/rest"
	apiapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apioptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
)

// Dial opens a connection to a node, as net.Dialer does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Wrap puts handlers in front of the API server's own on the shared port. auth says who a request comes from.
type Wrap func(api http.Handler, auth authenticator.Request) http.Handler

// LocalAPI is a group version that this process answers itself, behind the API server's authentication and authorization.
type LocalAPI = localapi.API

// stopTimeout is how long open connections may hold the stop of the API server.
const stopTimeout = time.Second

// encryptionPoll is how often the file with keys is looked at; upstream's minute would make a rotation take several.
const encryptionPoll = 3 * time.Second

// APIServer is kube-apiserver as a component.
type APIServer struct {
	// Dial, when set, reaches kubelets and pods instead of a direct connection: the tunnel.
	Dial Dial
	// Wrap, when set, shares the port with kedge's own handlers.
	Wrap Wrap
	// Kinds, when set, convert and check kedge's own custom resources.
	Kinds *conversion.Registry
	// Local are the APIs that kedge's own handlers answer.
	Local []LocalAPI
	// Encryption, when set, is asked for the file that says how values are encrypted in the datastore, empty for none; it may wait for the datastore.
	Encryption func(ctx context.Context) (file string, err error)
	// Sessions, when set, is the file by which the TLS sessions of nodes outlive a restart.
	Sessions string
	// Evictions, when set, is asked before the pods of a node that is out of reach may be evicted.
	Evictions evictions.Policy

	opts    apioptions.CompletedOptions
	options *apioptions.ServerRunOptions
	probe   *probe
	backend *backend.Backend // while it runs
}

// NewAPIServer parses and checks the arguments of kube-apiserver; it starts nothing.
func NewAPIServer(cfg Config) (*APIServer, error) {
	o := apioptions.NewServerRunOptions()
	if err := parseFlags(o.Flags(), apiServerArgs(cfg)); err != nil {
		return nil, fmt.Errorf("parse kube-apiserver arguments: %w", err)
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, fmt.Errorf("set feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return &APIServer{options: o, probe: newProbe(cfg.baseURL()+"/readyz", cfg.Files.AdminKubeconfig)}, nil
}

// Name implements supervisor.Component.
func (*APIServer) Name() string { return "apiserver" }

// Run implements supervisor.Component.
func (a *APIServer) Run(ctx context.Context) error {
	kinds.Admit(a.options.Admission, a.Kinds)
	if a.Evictions != nil {
		kinds.AddPlugin(a.options.Admission, evictions.Name, evictions.New(a.Evictions))
	}
	if err := a.encrypt(ctx); err != nil || ctx.Err() != nil {
		return unlessDone(ctx, err)
	}
	opts, err := a.options.Complete(ctx)
	if err != nil {
		return fmt.Errorf("complete options: %w", err)
	}
	if errs := opts.Validate(); len(errs) != 0 {
		return fmt.Errorf("check options: %w", utilerrors.NewAggregate(errs))
	}
	a.opts = opts
	if a.backend, err = backend.New(opts.Etcd); err != nil {
		return fmt.Errorf("prepare the datastore's connection: %w", err)
	}
	defer a.backend.Close()
	config, err := a.config()
	if err != nil {
		return err
	}
	completed, err := config.Complete()
	if err != nil {
		return fmt.Errorf("complete configuration: %w", err)
	}
	chain, err := apiapp.CreateServerChain(completed)
	if err != nil {
		return fmt.Errorf("create server chain: %w", err)
	}
	late, err := openapi.Serve(chain.GenericAPIServer, config.KubeAPIs.ControlPlane.Generic)
	if err != nil {
		return fmt.Errorf("install OpenAPI: %w", err)
	}
	// Watches of parts that have stopped without closing them would hold the stop for a minute.
	chain.GenericAPIServer.ShutdownTimeout = stopTimeout
	prepared, err := chain.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	late()
	if err := serving.Take(chain.GenericAPIServer.SecureServingInfo, chain.GenericAPIServer.Handler, stopTimeout, a.Sessions); err != nil {
		return fmt.Errorf("prepare its port: %w", err)
	}
	if err := prepared.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// unlessDone is an error, or nil when the part was told to stop meanwhile.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// encrypt has values encrypted in the datastore. What the user's own arguments say wins.
func (a *APIServer) encrypt(ctx context.Context) error {
	if a.Encryption == nil || a.options.Etcd.EncryptionProviderConfigFilepath != "" {
		return nil
	}
	file, err := a.Encryption(ctx)
	if err != nil || file == "" {
		return err
	}
	a.options.Etcd.EncryptionProviderConfigFilepath, a.options.Etcd.EncryptionProviderConfigAutomaticReload = file, true
	encryptioncontroller.EncryptionConfigFileChangePollDuration = encryptionPoll
	return nil
}

// Ready implements supervisor.Component: every check of /readyz has passed, RBAC bootstrap among them.
func (a *APIServer) Ready(ctx context.Context) error { return a.probe.check(ctx) }

// config is app.NewConfig in the parts that it exports, with our dialer and handlers between them.
func (a *APIServer) config() (*apiapp.Config, error) {
	generic, informers, storage, err := controlplaneapiserver.BuildGenericConfig(
		a.opts.CompletedOptions,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultAPIResourceConfigSource(),
		generatedopenapi.GetOpenAPIDefinitions,
	)
	if err != nil {
		return nil, fmt.Errorf("build generic configuration: %w", err)
	}
	openapi.Operations(generic)
	generic.RESTOptionsGetter = history.Keep(a.backend.Share(generic.RESTOptionsGetter))
	if a.Dial != nil {
		generic.EgressSelector = egressselector.NewEgressSelectorWithMap(map[egressselector.EgressType]utilnet.DialFunc{
			egressselector.Cluster: utilnet.DialFunc(a.Dial),
		})
	}
	kube, resolver, initializers, err := apiapp.CreateKubeAPIServerConfig(a.opts, generic, informers, storage)
	if err != nil {
		return nil, fmt.Errorf("build API configuration: %w", err)
	}
	c := &apiapp.Config{Options: a.opts, KubeAPIs: kube}
	cp := kube.ControlPlane
	c.ApiExtensions, err = controlplaneapiserver.CreateAPIExtensionsConfig(*cp.Generic, cp.VersionedInformers, initializers, a.opts.CompletedOptions,
		a.opts.MasterCount, resolver, kinds.ConvertHere(a.Kinds, webhook.NewDefaultAuthenticationInfoResolverWrapper(cp.ProxyTransport,
			cp.Generic.EgressSelector, cp.Generic.LoopbackClientConfig, cp.Generic.TracerProvider)))
	if err != nil {
		return nil, fmt.Errorf("build extensions configuration: %w", err)
	}
	c.ApiExtensions.ExtraConfig.CRDRESTOptionsGetter = history.Keep(a.backend.Share(c.ApiExtensions.ExtraConfig.CRDRESTOptionsGetter))
	c.Aggregator, err = controlplaneapiserver.CreateAggregatorConfig(*cp.Generic, a.opts.CompletedOptions, cp.VersionedInformers, resolver,
		cp.ProxyTransport, cp.Extra.PeerProxy, initializers)
	if err != nil {
		return nil, fmt.Errorf("build aggregator configuration: %w", err)
	}
	cp.Generic.SkipOpenAPIInstallation = true // the copies above install their own; see package openapi
	kubelets, err := newNodeProxy(kube.Extra.KubeletClientConfig, cp.Generic.AdmissionControl)
	if err != nil {
		return nil, fmt.Errorf("build proxy to nodes: %w", err)
	}
	localapi.Announce(a.Local, c.Aggregator.GenericConfig.AggregatedDiscoveryGroupManager)
	c.Aggregator.GenericConfig.BuildHandlerChainFunc = func(api http.Handler, g *genericapiserver.Config) http.Handler {
		kubelets.next = localapi.Front(a.Local, api)
		chain := genericapiserver.DefaultBuildHandlerChain(kubelets, g)
		if a.Wrap == nil {
			return chain
		}
		return a.Wrap(chain, g.Authentication.Authenticator)
	}
	return c, nil
}
