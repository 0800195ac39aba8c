package filter_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
)

func TestChain(t *testing.T) {
	services := corev1.SchemeGroupVersion.WithResource("services")
	label := func(value string) filter.Filter {
		return filter.Func{On: filter.For(services.GroupResource(), filter.KubeProxy), Do: func(_ filter.Request, obj runtime.Object) runtime.Object {
			s := obj.(*corev1.Service).DeepCopy()
			s.Labels = map[string]string{"was": s.Labels["is"], "is": value}
			return s
		}}
	}
	hide := filter.Func{On: filter.For(services.GroupResource(), filter.Pod), Do: func(filter.Request, runtime.Object) runtime.Object { return nil }}
	chain := filter.NewChain(label("a"), hide, label("b"))
	in := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}}

	out := chain.Change(filter.Request{Asker: filter.KubeProxy, Resource: services}, in).(*corev1.Service)
	if out.Labels["is"] != "b" || out.Labels["was"] != "a" || in.Labels != nil {
		t.Errorf("kube-proxy sees %v, the original is %v", out.Labels, in.Labels)
	}
	if got := chain.Change(filter.Request{Asker: filter.Pod, Resource: services}, in); got != nil {
		t.Errorf("a pod sees %v", got)
	}
	nodes := filter.Request{Asker: filter.KubeProxy, Resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}}
	if chain.Applies(nodes) || chain.Change(nodes, in) != runtime.Object(in) || !chain.Applies(filter.Request{Asker: filter.Pod, Resource: services}) {
		t.Error("a filter applies to what it did not ask for, or the other way round")
	}
	if none := (*filter.Chain)(nil); none.Applies(nodes) || none.Change(nodes, in) != runtime.Object(in) || none.Changed(services.GroupResource()) != nil {
		t.Error("no chain changes something")
	}
}

func TestReevaluate(t *testing.T) {
	services, nodes := schema.GroupResource{Resource: "services"}, schema.GroupResource{Resource: "nodes"}
	chain := filter.NewChain()
	one, other := chain.Changed(services), chain.Changed(nodes)
	chain.Reevaluate(services)
	<-one
	select {
	case <-other:
		t.Error("another resource was told")
	case <-chain.Changed(services):
		t.Error("told twice")
	default:
	}
}
