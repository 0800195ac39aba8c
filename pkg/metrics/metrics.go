// Package metrics answers the resource metrics API, metrics.k8s.io/v1beta1: what kubectl top and the HorizontalPodAutoscaler ask for.
//
// Nothing runs between two questions. A question reads the current usage from the kubelets concerned, which sample it all the time for
// themselves, and keeps the answers for Config.Period; a question about the pods of one Deployment reads only the nodes where they
// are. Only the server mode may import it; it imports no other feature.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Config says what the API works with.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file of the server, to look up pods and nodes.
	Kubeconfig string
	// Dial reaches NODE:PORT, as the API server does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// KubeletCA, KubeletCert and KubeletKey are files: whom to trust as a kubelet, and who we are to it.
	KubeletCA, KubeletCert, KubeletKey string
	// Period is how long what a kubelet said counts as current; 0 means DefaultPeriod.
	Period time.Duration
	Log    *slog.Logger
}

// DefaultPeriod is as often as kubelets sample usage.
const DefaultPeriod = 10 * time.Second

// API answers requests for nodes and pods of metrics.k8s.io. Whoever is let through to it may read: the API server in front decides.
type API struct {
	client corev1client.CoreV1Interface
	usage  *usage
	codecs serializer.CodecFactory
	log    *slog.Logger
}

// New checks cfg. It connects to nothing and starts nothing.
func New(cfg Config) (*API, error) {
	if cfg.Kubeconfig == "" || cfg.Dial == nil || cfg.KubeletCA == "" || cfg.KubeletCert == "" || cfg.KubeletKey == "" || cfg.Log == nil {
		return nil, errors.New("metrics: Kubeconfig, Dial, KubeletCA, KubeletCert, KubeletKey and Log are required")
	}
	if cfg.Period < 0 {
		return nil, fmt.Errorf("metrics: Period is %s, want a positive duration such as 10s", cfg.Period)
	}
	if cfg.Period == 0 {
		cfg.Period = DefaultPeriod
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load metrics kubeconfig: %w", err)
	}
	rc = rest.AddUserAgent(rc, "kedge-metrics")
	rc.QPS = -1
	rc.ContentType = runtime.ContentTypeProtobuf
	rc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := corev1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make metrics client: %w", err)
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metricsv1beta1.SchemeGroupVersion)
	if err := metricsv1beta1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("build metrics scheme: %w", err)
	}
	scheme.AddUnversionedTypes(metav1.Unversioned, &metav1.Status{})
	return &API{client: client, usage: newUsage(cfg.Period, newKubelets(cfg).read), codecs: serializer.NewCodecFactory(scheme), log: cfg.Log}, nil
}

// Group and Version are those of the API.
const (
	Group   = "metrics.k8s.io"
	Version = "v1beta1"
)

// Resources is what clients discover of the API.
func Resources() []metav1.APIResource {
	verbs := metav1.Verbs{"get", "list"}
	return []metav1.APIResource{
		{Name: "nodes", Kind: "NodeMetrics", Verbs: verbs},
		{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: verbs},
	}
}

var _ http.Handler = (*API)(nil)
