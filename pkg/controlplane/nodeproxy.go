package controlplane

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	core "k8s.io/kubernetes/pkg/apis/core"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// nodeProxy serves nodes/NAME/proxy for kubelets, after the API server has authenticated, authorized and logged the request.
// The API server's own code first looks the node's host name up in DNS; nodes are known to the tunnel by name, and to DNS most
// often not. Every other request goes to next.
type nodeProxy struct {
	next      http.Handler
	kubelets  http.RoundTripper
	port      string
	admission admission.Interface
}

func newNodeProxy(kubelets kubeletclient.KubeletClientConfig, admit admission.Interface) (*nodeProxy, error) {
	transport, err := kubeletclient.MakeTransport(&kubelets)
	if err != nil {
		return nil, err
	}
	return &nodeProxy{kubelets: transport, port: strconv.Itoa(int(kubelets.Port)), admission: admit}, nil
}

// ServeHTTP implements http.Handler.
func (p *nodeProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		p.next.ServeHTTP(w, r)
		return
	}
	node, path, ok := kubeletRequest(info, r.URL.Path, p.port)
	if !ok {
		p.next.ServeHTTP(w, r)
		return
	}
	fail := func(err error) {
		responsewriters.ErrorNegotiated(err, legacyscheme.Codecs, corev1.SchemeGroupVersion, w, r)
	}
	if err := p.admit(r, info, path); err != nil {
		fail(err)
		return
	}
	location := &url.URL{Scheme: "https", Host: net.JoinHostPort(node, p.port), Path: path}
	proxy.NewUpgradeAwareHandler(location, p.kubelets, true, false, proxy.NewErrorResponder(responder(fail))).ServeHTTP(w, r)
}

// responder answers with an error.
type responder func(error)

// Error implements proxy.SimpleErrorResponder.
func (f responder) Error(err error) { f(err) }

// kubeletRequest returns the node and the path on its kubelet, when the request is for a kubelet through the proxy.
func kubeletRequest(info *request.RequestInfo, path, port string) (node, rest string, ok bool) {
	if !info.IsResourceRequest || info.APIGroup != "" || info.Resource != "nodes" || info.Subresource != "proxy" || info.Name == "" {
		return "", "", false
	}
	scheme, node, wanted, valid := utilnet.SplitSchemeNamePort(info.Name)
	if !valid || wanted != "" && wanted != port || scheme == "http" {
		return "", "", false
	}
	_, rest, found := strings.Cut(path, "/nodes/"+info.Name+"/proxy")
	if !found || rest != "" && rest[0] != '/' {
		return "", "", false
	}
	if rest == "" {
		rest = "/"
	}
	return node, rest, true
}

// admit lets admission plugins and policies refuse, as they can where the API server proxies itself.
func (p *nodeProxy) admit(r *http.Request, info *request.RequestInfo, path string) error {
	if p.admission == nil || !p.admission.Handles(admission.Connect) {
		return nil
	}
	user, _ := request.UserFrom(r.Context())
	attributes := admission.NewAttributesRecord(&core.NodeProxyOptions{Path: path}, nil, corev1.SchemeGroupVersion.WithKind("NodeProxyOptions"),
		"", info.Name, corev1.SchemeGroupVersion.WithResource("nodes"), "proxy", admission.Connect, nil, false, user)
	objects := admission.NewObjectInterfacesFromScheme(legacyscheme.Scheme)
	if m, ok := p.admission.(admission.MutationInterface); ok {
		if err := m.Admit(r.Context(), attributes, objects); err != nil {
			return err
		}
	}
	if v, ok := p.admission.(admission.ValidationInterface); ok {
		return v.Validate(r.Context(), attributes, objects)
	}
	return nil
}
