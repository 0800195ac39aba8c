package dns

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// smallAPI speaks the list and watch requests that the DNS server makes and takes its Events.
type smallAPI struct {
	*httptest.Server
	mu       sync.Mutex
	version  int
	objects  map[string][]runtime.Object // by resource
	watchers map[string][]chan metav1.WatchEvent
	events   chan corev1.Event
}

func newSmallAPI(t *testing.T) *smallAPI {
	a := &smallAPI{
		objects: map[string][]runtime.Object{}, watchers: map[string][]chan metav1.WatchEvent{},
		events: make(chan corev1.Event, 10),
	}
	a.Server = httptest.NewServer(a)
	t.Cleanup(func() { a.CloseClientConnections(); a.Close() })
	return a
}

// kubeconfig writes a kubeconfig file for the API.
func (a *smallAPI) kubeconfig(t *testing.T) string { return writeKubeconfig(t, a.URL) }

func writeKubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],`+
		`"contexts":[{"name":"c","context":{"cluster":"c"}}]}`, url)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// put adds or replaces an object and tells the watchers.
func (a *smallAPI) put(resource string, o runtime.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	m := o.(metav1.Object)
	m.SetResourceVersion(fmt.Sprint(a.version))
	kind := watch.Added
	kept := a.objects[resource][:0]
	for _, old := range a.objects[resource] {
		if old.(metav1.Object).GetName() == m.GetName() && old.(metav1.Object).GetNamespace() == m.GetNamespace() {
			kind = watch.Modified
			continue
		}
		kept = append(kept, old)
	}
	a.objects[resource] = append(kept, o)
	for _, w := range a.watchers[resource] {
		w <- metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: o}}
	}
}

// ServeHTTP answers GET of a resource as a list or a watch, and POST of events.
func (a *smallAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost:
		a.takeEvent(w, r)
	case strings.HasSuffix(r.URL.Path, "/services/kubernetes"):
		http.NotFound(w, r)
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource)
	default:
		a.mu.Lock()
		defer a.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{
			"kind": "List", "apiVersion": "v1", "items": a.objects[resource],
			"metadata": map[string]string{"resourceVersion": fmt.Sprint(a.version)},
		})
	}
}

// takeEvent keeps a posted Event, which comes in protobuf.
func (a *smallAPI) takeEvent(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var e corev1.Event
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, &e)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.events <- e
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(e)
}

// watch streams what exists, the mark that ends it, and then the changes.
func (a *smallAPI) watch(w http.ResponseWriter, r *http.Request, resource string) {
	changes := make(chan metav1.WatchEvent, 100)
	a.mu.Lock()
	initial := append([]runtime.Object(nil), a.objects[resource]...)
	version := fmt.Sprint(a.version)
	a.watchers[resource] = append(a.watchers[resource], changes)
	a.mu.Unlock()
	out := json.NewEncoder(w)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range initial {
			_ = out.Encode(metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Object: o}})
		}
		mark := bookmark(resource, version)
		_ = out.Encode(metav1.WatchEvent{Type: "BOOKMARK", Object: runtime.RawExtension{Object: mark}})
	}
	for {
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case e := <-changes:
			_ = out.Encode(e)
		}
	}
}

func bookmark(resource, version string) runtime.Object {
	meta := metav1.ObjectMeta{ResourceVersion: version, Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
	switch resource {
	case "services":
		return &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: meta}
	case "namespaces":
		return &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: meta}
	case "configmaps":
		return &corev1.ConfigMap{TypeMeta: typed("v1", "ConfigMap"), ObjectMeta: meta}
	default:
		return &discoveryv1.EndpointSlice{TypeMeta: typed("discovery.k8s.io/v1", "EndpointSlice"), ObjectMeta: meta}
	}
}

func typed(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

func service(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{
		TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: "TCP"}}},
	}
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func slice(namespace, service, pod, ip string) *discoveryv1.EndpointSlice {
	ready, port, name, proto := true, int32(80), "web", corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{
		TypeMeta: typed("discovery.k8s.io/v1", "EndpointSlice"),
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: service + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{ip}, Hostname: &pod, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &proto}},
	}
}

func customMap(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta: typed("v1", "ConfigMap"), ObjectMeta: metav1.ObjectMeta{Namespace: customNamespace, Name: customName}, Data: data,
	}
}
