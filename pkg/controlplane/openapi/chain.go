package openapi

import (
	"fmt"
	"maps"
	"slices"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
)

// Serve serves the OpenAPI of the built-in groups and of custom resources, built on demand. front is the first server of the chain,
// cfg what all its servers were made from. late is to be called when the chain has been prepared and does not run yet.
func Serve(front *genericapiserver.GenericAPIServer, cfg *genericapiserver.Config) (late func(), err error) {
	builtin, err := next(front)
	if err != nil {
		return nil, err
	}
	extensions, err := next(builtin)
	if err != nil {
		return nil, err
	}
	list, err := Read(cfg.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	custom := NewCustom(list)
	front.AddPostStartHookOrDie("kedge-openapi", func(hook genericapiserver.PostStartHookContext) error {
		follow, err := custom.Follow(cfg.LoopbackClientConfig)
		if err != nil {
			return err
		}
		go follow(hook)
		return nil
	})
	documented := Config{
		Container: builtin.Handler.GoRestfulContainer, V2: cfg.OpenAPIConfig, V3: cfg.OpenAPIV3Config, Identity: identity(cfg),
	}
	Install(documented, builtin.Handler.NonGoRestfulMux)
	return func() {
		// The models of server-side apply are made; a document that is asked for makes its definitions again.
		cfg.OpenAPIV3Config.Definitions = nil
		// Without this service its controller, which would build the documents of all custom resources, does not start.
		extensions.OpenAPIV3VersionedService = nil
		documented.Container, documented.V2, documented.Custom = extensions.Handler.GoRestfulContainer, nil, custom
		Replace(documented, extensions.Handler.NonGoRestfulMux)
	}, nil
}

// Operations names the operations of both versions as upstream does. Left to itself, upstream's builder sets these functions when it first builds
// a document, and with them keeps all definitions that it read for that, as long as cfg lives. It is to be called before anything is built.
func Operations(cfg *genericapiserver.Config) {
	cfg.OpenAPIConfig.GetOperationIDAndTagsFromRoute = fromRoute(cfg.OpenAPIConfig.GetOperationIDAndTags)
	cfg.OpenAPIV3Config.GetOperationIDAndTagsFromRoute = fromRoute(cfg.OpenAPIV3Config.GetOperationIDAndTags)
}

// fromRoute is name for a route of go-restful behind the builder's own type.
func fromRoute(name func(*restful.Route) (string, []string, error)) func(common.Route) (string, []string, error) {
	return func(r common.Route) (string, []string, error) {
		adapted, ok := r.(*restfuladapter.RouteAdapter)
		if !ok {
			return "", nil, fmt.Errorf("%T is not a route of go-restful", r)
		}
		return name(adapted.Route)
	}
}

// next is the server that s passes on to what it does not know.
func next(s *genericapiserver.GenericAPIServer) (*genericapiserver.GenericAPIServer, error) {
	n, ok := s.NextDelegate().(*genericapiserver.GenericAPIServer)
	if !ok {
		return nil, fmt.Errorf("the chain of servers has changed: %T", s.NextDelegate())
	}
	return n, nil
}

// identity names the version and the feature gates, which decide the documents of the built-in groups.
func identity(cfg *genericapiserver.Config) string {
	text := cfg.EffectiveVersion.Info().String() + cfg.EffectiveVersion.EmulationVersion().String()
	gates := utilfeature.DefaultMutableFeatureGate.GetAll()
	for _, gate := range slices.Sorted(maps.Keys(gates)) {
		text += fmt.Sprintf(" %s=%t", gate, utilfeature.DefaultFeatureGate.Enabled(gate))
	}
	return text
}
