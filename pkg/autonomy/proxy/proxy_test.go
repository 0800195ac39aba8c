package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

func TestKubeletPath(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "first"}, {Name: "second"}}},
	}
	for _, c := range []struct{ subresource, query, path, raw string }{
		{"log", "follow=true&tailLines=5", "/containerLogs/ns/p/first", "follow=true&tailLines=5"},
		{"log", "container=second", "/containerLogs/ns/p/second", ""},
		{"exec", "command=ls&command=-l&stdin=true&stdout=true&stderr=false&tty=false", "/exec/ns/p/first", "command=ls&command=-l&input=1&output=1"},
		{"attach", "container=second&stdout=1&tty=1", "/attach/ns/p/second", "output=1&tty=1"},
		{"portforward", "ports=80", "/portForward/ns/p", "ports=80"},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		if path, raw := kubeletPath(pod, c.subresource, q); path != c.path || raw != c.raw {
			t.Errorf("%s?%s: %s?%s", c.subresource, c.query, path, raw)
		}
	}
}

func TestContainersAreNamesOfThePod(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "main"}}, InitContainers: []corev1.Container{{Name: "init"}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}},
	}}
	for name, want := range map[string]bool{"main": true, "init": true, "debug": true, "": false, "../../exec/ns/p/main": false} {
		if got := hasContainer(pod, name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestScopeKeys(t *testing.T) {
	ask := func(asker filter.Asker, resource schema.GroupVersionResource, namespace, name, fields, labels string) cache.Key {
		q := &question{user: identity.User{Asker: asker}, resource: resource, RequestInfo: &request.RequestInfo{Resource: resource.Resource, Namespace: namespace, Name: name}}
		q.options.FieldSelector, q.options.LabelSelector = fields, labels
		return scopeKey(q, "n")
	}
	core := corev1.SchemeGroupVersion.WithResource
	slices := discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	if a, b := ask(filter.KubeProxy, slices, "", "", "", "!headless"), ask(filter.Controllers, slices, "", "", "", ""); a != b || a.Asker != "" {
		t.Errorf("all EndpointSlices are followed twice: %+v, %+v", a, b)
	}
	if a, b := ask(filter.KubeProxy, core("nodes"), "", "n", "metadata.name=n", ""), ask(filter.Kubelet, core("nodes"), "", "n", "", ""); a != b {
		t.Errorf("this node is followed twice: %+v, %+v", a, b)
	}
	if a, b := ask(filter.KubeProxy, core("services"), "", "", "spec.clusterIP!=None", "!x"), ask(filter.Kubelet, core("services"), "", "", "", ""); a != b {
		t.Errorf("all Services are followed twice: %+v, %+v", a, b)
	}
	if k := ask(filter.KubeProxy, core("services"), "", "", "status.phase=x", ""); k.Fields == "" {
		t.Error("a field that cannot be selected by here is not left to the server")
	}
	secret := ask(filter.Kubelet, core("secrets"), "ns", "s", "metadata.name=s", "")
	for name, other := range map[string]cache.Key{
		"another asker": ask(filter.Controllers, core("secrets"), "ns", "s", "metadata.name=s", ""),
		"all":           ask(filter.Kubelet, core("secrets"), "ns", "", "", ""),
		"namespace":     ask(filter.Kubelet, core("secrets"), "other", "s", "metadata.name=s", ""),
		"resource":      ask(filter.Kubelet, core("configmaps"), "ns", "s", "metadata.name=s", ""),
		"group":         ask(filter.Kubelet, schema.GroupVersionResource{Group: "g", Version: "v1", Resource: "secrets"}, "ns", "s", "metadata.name=s", ""),
	} {
		if secret == other {
			t.Errorf("%s: one scope for two questions", name)
		}
	}
	if ask(filter.Kubelet, core("pods"), "", "", "spec.nodeName=n", "") != cache.PodsKey("n") {
		t.Error("the pods of the node are not where they are looked for")
	}
}

func TestPatchOfStatus(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "1", ResourceVersion: "5"},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse},
		}},
	}
	o, err := object.Of(corev1.SchemeGroupVersion.WithKind("Pod"), pod)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": "1"}, "status": map[string]any{
		"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch(o, string(types.StrategicMergePatchType), body)
	if err != nil {
		t.Fatal(err)
	}
	got := out.(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || len(got.Status.Conditions) != 2 || got.Status.Conditions[0].Status == "" || got.ResourceVersion != "5" {
		t.Errorf("%+v", got.Status)
	}
	if _, err := patch(o, string(types.JSONPatchType), []byte("[]")); err == nil {
		t.Error("a patch of another kind was taken")
	}
	if _, err := patch(o, string(types.StrategicMergePatchType), []byte("{")); err == nil {
		t.Error("half a patch was taken")
	}
}

func TestWhoMayRead(t *testing.T) {
	secrets := cache.Key{Asker: filter.Kubelet}
	for asker, want := range map[filter.Asker]bool{filter.Kubelet: true, filter.KubeProxy: false, filter.Controllers: false, filter.Operator: true} {
		if got := mayRead(identity.User{Asker: asker}, secrets); got != want {
			t.Errorf("%s reads what the kubelet asked for: %v", asker, got)
		}
	}
	if !mayRead(identity.User{Asker: filter.KubeProxy}, cache.Key{}) {
		t.Error("kube-proxy may not read what all share")
	}
}

func TestReportedConditions(t *testing.T) {
	node := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse},
		{Type: "LinkUp", Status: corev1.ConditionTrue},
	}}}
	if got := reported(node); len(got) != 1 || got[0].Type != corev1.NodeDiskPressure || len(node.Status.Conditions) != 3 {
		t.Errorf("%+v", got)
	}
}

func TestEventsThatPassAreFiltered(t *testing.T) {
	slices := discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	chain := filter.NewChain(filter.Func{On: filter.For(slices.GroupResource(), filter.Pod), Do: func(_ filter.Request, o runtime.Object) runtime.Object {
		if o.(*discoveryv1.EndpointSlice).Name == "hidden" {
			return nil
		}
		out := o.(*discoveryv1.EndpointSlice).DeepCopy()
		out.AddressType = "changed"
		return out
	}})
	view := cache.View{Chain: chain, Request: filter.Request{Asker: filter.Pod, Resource: slices}}
	kind := discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")
	var in, out bytes.Buffer
	form := object.Form{Proto: true}
	for i, name := range []string{"shown", "hidden"} {
		o, err := object.Of(kind, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: strconv.Itoa(i + 1)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := form.WriteEvent(&in, watch.Added, o); err != nil {
			t.Fatal(err)
		}
	}
	mark, err := object.Bookmark(kind, 9, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := form.WriteEvent(&in, watch.Bookmark, mark); err != nil {
		t.Fatal(err)
	}
	if err := filterEvents(view, object.NewEventReader(form.ContentType(true), &in), form, &out); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	events := object.NewEventReader(form.ContentType(true), &out)
	for _, want := range []watch.EventType{watch.Added, watch.Deleted, watch.Bookmark} {
		e, err := events.Next()
		if err != nil || e.Type != want {
			t.Fatalf("%+v, %v; want %s", e, err, want)
		}
		if decoded, err := e.Object.Decode(); want == watch.Added && (err != nil || decoded.(*discoveryv1.EndpointSlice).AddressType != "changed") {
			t.Errorf("%+v, %v", decoded, err)
		}
	}
}
