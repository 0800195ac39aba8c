package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// documents is the bucket of what the server says about itself.
const documents = "documents"

// maxDocument bounds one of them.
const maxDocument = 1 << 20

// document answers what is not a resource: which kinds there are, the version, health.
func (p *Proxy) document(w http.ResponseWriter, r *http.Request, q *question) {
	if (q.user.Asker != filter.Operator || discovery(q.Path)) && p.online(r) && (q.user.Asker != filter.Operator || r.Method == http.MethodGet) {
		p.forward(w, r, q, func(err error) {
			if !p.documentHere(w, r, q) {
				p.fail(w, r, p.offline(q, err.Error()))
			}
		})
		return
	}
	if q.user.Asker == filter.Pod {
		if err := p.admitHere(q); err != nil {
			p.fail(w, r, err)
			return
		}
	}
	if !p.documentHere(w, r, q) {
		p.fail(w, r, p.offline(q, "it does not hold this document"))
	}
}

// discovery says whether a path tells which kinds there are.
func discovery(path string) bool {
	path = strings.TrimRight(path, "/")
	return path == "/version" || path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/")
}

// kept is a document with its type.
type kept struct {
	ContentType string `json:"type"`
	Body        []byte `json:"body"`
}

func documentKey(path string, aggregated bool) string {
	key := strings.TrimRight(path, "/")
	if aggregated {
		key += " aggregated"
	}
	return key
}

func (p *Proxy) keepDocument(q *question, contentType string, data []byte) {
	if !discovery(q.Path) || len(data) > maxDocument || object.IsProtoType(contentType) {
		return
	}
	value, err := json.Marshal(kept{contentType, data})
	if err == nil {
		p.cfg.Cache.SetValue(documents, documentKey(q.Path, strings.Contains(contentType, "apidiscovery")), value)
	}
}

// documentHere answers from what was kept, and says whether it could.
func (p *Proxy) documentHere(w http.ResponseWriter, r *http.Request, q *question) bool {
	if q.Path == "/readyz" || q.Path == "/livez" || q.Path == "/healthz" {
		_, _ = w.Write([]byte("ok")) // the node API itself is
		return true
	}
	for _, aggregated := range []bool{strings.Contains(q.accept, "apidiscovery"), false} {
		value, ok := p.cfg.Cache.Value(documents, documentKey(q.Path, aggregated))
		var k kept
		if !ok || json.Unmarshal(value, &k) != nil {
			continue
		}
		w.Header().Set("Content-Type", k.ContentType)
		_, _ = w.Write(k.Body) // the client may be gone
		return true
	}
	return false
}

// rules are the roles that the node knows.
func (p *Proxy) rules() identity.Rules {
	r := identity.Rules{ClusterRoles: map[string]*rbacv1.ClusterRole{}, Roles: map[string]*rbacv1.Role{}}
	for _, resource := range RBACResources() {
		s := p.cfg.Cache.Scope(rolesKey(resource), false)
		if s == nil {
			continue
		}
		l, err := s.List(cache.View{})
		if err != nil {
			continue // what cannot be read allows nothing
		}
		for _, item := range l.Items {
			decoded, err := item.Decode()
			if err != nil {
				continue
			}
			switch o := decoded.(type) {
			case *rbacv1.ClusterRole:
				r.ClusterRoles[o.Name] = o
			case *rbacv1.Role:
				r.Roles[o.Namespace+"/"+o.Name] = o
			case *rbacv1.ClusterRoleBinding:
				r.ClusterRoleBindings = append(r.ClusterRoleBindings, o)
			case *rbacv1.RoleBinding:
				r.RoleBindings = append(r.RoleBindings, o)
			}
		}
	}
	return r
}

func rolesKey(resource string) cache.Key {
	return cache.Key{Asker: filter.Controllers, Resource: rbacv1.SchemeGroupVersion.WithResource(resource)}
}

// RBACResources are what a node must know to authorize while it is cut off.
func RBACResources() []string {
	return []string{"clusterroles", "clusterrolebindings", "roles", "rolebindings"}
}

// isStream says whether a request leads to the kubelet's own API.
func isStream(q *question) bool {
	if !q.IsResourceRequest || q.Resource != "pods" || q.Name == "" {
		return false
	}
	return q.Subresource == "log" || q.Subresource == "exec" || q.Subresource == "attach" || q.Subresource == "portforward"
}

// stream leads to a pod: through the server while that can be reached, else, and for the local operator always, straight to the kubelet.
func (p *Proxy) stream(w http.ResponseWriter, r *http.Request, q *question) {
	if q.user.Asker != filter.Operator {
		if p.online(r) {
			p.forward(w, r, q, func(err error) { p.fail(w, r, p.offline(q, err.Error())) })
			return
		}
		if err := p.admitHere(q); err != nil {
			p.fail(w, r, err)
			return
		}
	}
	s := p.cfg.Cache.Scope(cache.PodsKey(p.cfg.NodeName), false)
	if s == nil {
		p.fail(w, r, p.offline(q, "it has no pods"))
		return
	}
	o, _ := s.Get(object.Key(q.Namespace, q.Name))
	if o == nil {
		p.fail(w, r, apierrors.NewNotFound(q.resource.GroupResource(), q.Name+" on node "+p.cfg.NodeName))
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "the kubelet speaks SPDY", http.StatusBadRequest) // clients try that next
		return
	}
	p.toKubelet(w, r, q, o)
}

// toKubelet translates a request for a pod into one to the kubelet.
func (p *Proxy) toKubelet(w http.ResponseWriter, r *http.Request, q *question, o *object.Object) {
	decoded, err := o.Decode()
	if err != nil {
		p.fail(w, r, err)
		return
	}
	pod, ok := decoded.(*corev1.Pod)
	if c := r.URL.Query().Get("container"); !ok || c != "" && !hasContainer(pod, c) {
		p.fail(w, r, apierrors.NewBadRequest(fmt.Sprintf("pod %s has no container %q", q.Name, c)))
		return
	}
	target := &url.URL{Scheme: "https", Host: p.cfg.KubeletAddress}
	target.Path, target.RawQuery = kubeletPath(pod, q.Subresource, r.URL.Query())
	proxy := httputil.ReverseProxy{
		Rewrite: func(out *httputil.ProxyRequest) {
			out.Out.URL = target
			out.Out.Host = target.Host
			out.Out.Header.Del("Authorization")
		},
		Transport: p.kubelet, FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.fail(w, r, apierrors.NewServiceUnavailable("the kubelet does not answer: "+err.Error()))
		},
	}
	proxy.ServeHTTP(w, r)
}

// hasContainer says whether a pod has a container of this name: it becomes a part of a path.
func hasContainer(pod *corev1.Pod, name string) bool {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == name {
			return true
		}
	}
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

// kubeletPath is where the kubelet serves what the API serves as a subresource.
func kubeletPath(pod *corev1.Pod, subresource string, query url.Values) (path, rawQuery string) {
	container := query.Get("container")
	if container == "" && len(pod.Spec.Containers) > 0 {
		if container = pod.Annotations["kubectl.kubernetes.io/default-container"]; !hasContainer(pod, container) {
			container = pod.Spec.Containers[0].Name
		}
	}
	at := pod.Namespace + "/" + pod.Name
	out := url.Values{}
	switch subresource {
	case "log":
		for k, v := range query {
			if k != "container" {
				out[k] = v
			}
		}
		return "/containerLogs/" + at + "/" + container, out.Encode()
	case "portforward":
		return "/portForward/" + at, query.Encode()
	}
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if on, err := strconv.ParseBool(query.Get(from)); err == nil && on {
			out.Set(to, "1")
		}
	}
	for _, c := range query["command"] {
		out.Add("command", c)
	}
	return "/" + subresource + "/" + at + "/" + container, out.Encode()
}

// LearnDocument keeps a document that perhaps nobody has asked for yet.
func (p *Proxy) LearnDocument(path, contentType string, data []byte) {
	p.keepDocument(&question{RequestInfo: &request.RequestInfo{Path: path}}, contentType, data)
}

// learnEvery is how often what a pod reads as a table is read in plain form.
const learnEvery = time.Hour

// learnTable reads what a pod of this node was just answered as a table, which kubectl asks for, once more in plain form and under the same identity: a table
// is no answer to anybody else, and none of today when the server is away.
func (p *Proxy) learnTable(q *question, asked *http.Request) {
	if q.user.Asker != filter.Pod || q.Verb != "list" && q.Verb != "get" || q.options.Continue != "" || asked == nil {
		return
	}
	scope := p.tableScope(q)
	if scope == nil || !scope.Due(learnEvery) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(p.cfg.Link.Epoch(), patience)
		defer cancel()
		again := asked.Clone(ctx)
		again.Header.Set("Accept", object.MediaJSON)
		again.Header.Del("Accept-Encoding")
		query := again.URL.Query()
		query.Del("limit") // all of it or nothing
		again.URL.RawQuery = query.Encode()
		if contentType, data, ok := p.fetch(again, q); ok {
			p.digest(q, contentType, data)
		}
	}()
}

// tableScope is where the answer is kept, or nil when there are too many.
func (p *Proxy) tableScope(q *question) *cache.Scope {
	if q.Verb == "list" {
		return p.podScope(q)
	}
	one := *q
	one.options.FieldSelector = "metadata.name=" + q.Name
	return p.podScope(&one)
}

// fetch asks the server, and returns an answer that may be kept.
func (p *Proxy) fetch(r *http.Request, q *question) (contentType string, data []byte, ok bool) {
	transport, err := p.cfg.Link.Transport(q.user.Credential, false)
	if err != nil {
		return "", nil, false
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return "", nil, false
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxRecorded+1))
	return resp.Header.Get("Content-Type"), data, err == nil && resp.StatusCode == http.StatusOK && len(data) <= maxRecorded
}
