// Package localapi lets this process answer API groups itself, behind the authentication, authorization and audit of its API server:
// no second server, no port, no certificate. An APIService without a service announces the group. Only controlplane imports it.
package localapi

import (
	"net/http"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// API is one group version.
type API struct {
	Group, Version string
	// Resources is what clients discover.
	Resources []metav1.APIResource
	// Handler answers requests for resources; it finds user and RequestInfo in the context. Who may ask is decided before.
	Handler http.Handler
}

func (a API) path() string { return "/apis/" + a.Group + "/" + a.Version }

// Front answers requests for apis and passes all others on.
func Front(apis []API, next http.Handler) http.Handler {
	if len(apis) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, a := range apis {
			rest, ours := strings.CutPrefix(r.URL.Path, a.path())
			switch {
			case !ours || rest != "" && rest[0] != '/':
				continue
			case rest == "" || rest == "/":
				a.list().ServeHTTP(w, r)
			default:
				a.Handler.ServeHTTP(w, r)
			}
			return
		}
		next.ServeHTTP(w, r)
	})
}

// list is the discovery document of the group version.
func (a API) list() http.Handler {
	return discovery.NewAPIVersionHandler(legacyscheme.Codecs, schema.GroupVersion{Group: a.Group, Version: a.Version},
		discovery.APIResourceListerFunc(func() []metav1.APIResource { return a.Resources }))
}

// Announce adds apis to the document in which clients discover all groups at once.
func Announce(apis []API, manager aggregated.ResourceManager) {
	for _, a := range apis {
		version := apidiscoveryv2.APIVersionDiscovery{Version: a.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, r := range a.Resources {
			scope := apidiscoveryv2.ScopeCluster
			if r.Namespaced {
				scope = apidiscoveryv2.ScopeNamespace
			}
			version.Resources = append(version.Resources, apidiscoveryv2.APIResourceDiscovery{
				Resource: r.Name, SingularResource: r.SingularName, Scope: scope, Verbs: r.Verbs,
				ResponseKind: &metav1.GroupVersionKind{Group: a.Group, Version: a.Version, Kind: r.Kind},
			})
		}
		manager.WithSource(aggregated.AggregatorSource).AddGroupVersion(a.Group, version)
	}
}
