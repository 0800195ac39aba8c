package metrics

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// requestTime bounds a question; what kubelets have said by then is the answer.
const requestTime = answerTime + 5*time.Second

// ServeHTTP answers get and list of nodes and pods. It expects the API server's RequestInfo in the context.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		http.Error(w, "no request info", http.StatusInternalServerError)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	obj, err := a.answer(ctx, info, r)
	if err != nil {
		responsewriters.ErrorNegotiated(err, a.codecs, metricsv1beta1.SchemeGroupVersion, w, r)
		return
	}
	if wantsTable(r.Header.Get("Accept")) {
		responsewriters.WriteRawJSON(http.StatusOK, table(obj), w)
		return
	}
	responsewriters.WriteObjectNegotiated(a.codecs, negotiation.DefaultEndpointRestrictions, metricsv1beta1.SchemeGroupVersion, w, r, http.StatusOK, obj, false)
}

func (a *API) answer(ctx context.Context, info *request.RequestInfo, r *http.Request) (runtime.Object, error) {
	query := r.URL.Query()
	options := metav1.ListOptions{ // from the API server's own cache
		LabelSelector: query.Get("labelSelector"), FieldSelector: query.Get("fieldSelector"), ResourceVersion: "0",
	}
	resource := schema.GroupResource{Group: Group, Resource: info.Resource}
	switch {
	case info.Verb != "get" && info.Verb != "list":
		return nil, apierrors.NewMethodNotSupported(resource, info.Verb)
	case info.Subresource != "":
		return nil, apierrors.NewNotFound(resource, info.Name+"/"+info.Subresource)
	case info.Resource == "nodes" && info.Verb == "get":
		return a.node(ctx, info.Name)
	case info.Resource == "nodes":
		return a.nodes(ctx, options)
	case info.Resource == "pods" && info.Verb == "get":
		return a.pod(ctx, info.Namespace, info.Name)
	case info.Resource == "pods":
		return a.pods(ctx, info.Namespace, options)
	}
	return nil, apierrors.NewNotFound(resource, info.Name)
}

func (a *API) node(ctx context.Context, name string) (runtime.Object, error) {
	node, err := a.client.Nodes().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	list, errs := a.nodeMetrics(ctx, []corev1.Node{*node})
	if len(list) == 0 {
		return nil, notKnown("nodes", name, errs[name])
	}
	return &list[0], nil
}

func (a *API) nodes(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	nodes, err := a.client.Nodes().List(ctx, options)
	if err != nil {
		return nil, err
	}
	list, _ := a.nodeMetrics(ctx, nodes.Items)
	return &metricsv1beta1.NodeMetricsList{Items: list}, nil
}

func (a *API) nodeMetrics(ctx context.Context, nodes []corev1.Node) ([]metricsv1beta1.NodeMetrics, map[string]error) {
	var names []string
	for i := range nodes {
		names = append(names, nodes[i].Name)
	}
	samples, errs := a.ask(ctx, names)
	list := []metricsv1beta1.NodeMetrics{}
	for i := range nodes {
		if s := samples[nodes[i].Name]; s != nil && s.node != nil {
			list = append(list, nodeMetrics(&nodes[i], *s.node))
		}
	}
	slices.SortFunc(list, func(x, y metricsv1beta1.NodeMetrics) int { return cmp.Compare(x.Name, y.Name) })
	return list, errs
}

func (a *API) pod(ctx context.Context, namespace, name string) (runtime.Object, error) {
	pod, err := a.client.Pods(namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	list, errs := a.podMetrics(ctx, []corev1.Pod{*pod})
	if len(list) == 0 {
		return nil, notKnown("pods", namespace+"/"+name, errs[pod.Spec.NodeName])
	}
	return &list[0], nil
}

func (a *API) pods(ctx context.Context, namespace string, options metav1.ListOptions) (runtime.Object, error) {
	pods, err := a.client.Pods(namespace).List(ctx, options)
	if err != nil {
		return nil, err
	}
	list, _ := a.podMetrics(ctx, pods.Items)
	return &metricsv1beta1.PodMetricsList{Items: list}, nil
}

func (a *API) podMetrics(ctx context.Context, pods []corev1.Pod) ([]metricsv1beta1.PodMetrics, map[string]error) {
	on := map[string]bool{}
	var names []string
	for i := range pods {
		if node := pods[i].Spec.NodeName; running(&pods[i]) && !on[node] {
			on[node] = true
			names = append(names, node)
		}
	}
	samples, errs := a.ask(ctx, names)
	list := []metricsv1beta1.PodMetrics{}
	for i := range pods {
		if s := samples[pods[i].Spec.NodeName]; s != nil && running(&pods[i]) {
			if m, ok := podMetrics(&pods[i], s); ok {
				list = append(list, m)
			}
		}
	}
	slices.SortFunc(list, func(x, y metricsv1beta1.PodMetrics) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return list, errs
}

func (a *API) ask(ctx context.Context, nodes []string) (map[string]*sample, map[string]error) {
	samples, errs := a.usage.of(ctx, nodes)
	for node, err := range errs {
		a.log.Debug("usage of node not known", "node", node, "error", err)
	}
	return samples, errs
}

func running(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodRunning
}

// notKnown says why there is no usage of an object that exists.
func notKnown(resource, name string, err error) error {
	out := apierrors.NewNotFound(schema.GroupResource{Group: Group, Resource: resource}, name)
	out.ErrStatus.Message = fmt.Sprintf("no usage of %s %s is known yet", strings.TrimSuffix(resource, "s"), name)
	if err != nil {
		out.ErrStatus.Message += ": " + err.Error()
	}
	return out
}
