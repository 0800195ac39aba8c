package autonomy

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
)

// Filter changes what the node's parts see; see Config.Filters.
type Filter = filter.Filter

// ForServices is a filter of what reads a resource to reach Services: kube-proxy, DNS, and pods such as ingress controllers. The kubelet and the
// operator see the resource as it is.
func ForServices(resource schema.GroupResource, change func(runtime.Object) runtime.Object) Filter {
	return filter.Func{
		On: filter.For(resource, filter.KubeProxy, filter.Controllers, filter.Pod),
		Do: func(_ filter.Request, o runtime.Object) runtime.Object { return change(o) },
	}
}
