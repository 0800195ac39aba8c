// Package health is the server's half of neighbour health: it listens for nodes, asks those that it hears about those that it does not,
// and decides whose pods may be evicted. What the nodes do is in health/gossip, the decision itself in health/verdict.
// It is a feature: server wires it, and the API server asks it before Kubernetes' own controllers may evict.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
	"github.com/kedge-io/kedge/pkg/kube"
)

// Config says what the controller works with.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file of the server.
	Kubeconfig string
	// Server names this server among several; they agree on one that acts.
	Server string
	// Single says that no other server shares the datastore.
	Single bool
	// Ask reaches a node's kubelet, by the name of the node; an error says that it cannot.
	Ask func(ctx context.Context, node string) error
	Log *slog.Logger
}

// Controller is the component "neighbour-health" of a server. Its methods MayEvict and MayUnready are for the API server.
type Controller struct {
	cfg     Config
	client  kubernetes.Interface
	nodes   *mirror
	leases  *mirror
	configs *mirror
	events  record.EventRecorder
	metrics *gauges

	// Only the loop uses these.
	records map[string]*memory
	told    map[string]string // errors in settings that were logged, by ConfigMap
	answers chan answer
	laidOut uint64    // what the neighbourhoods were last made of
	looked  time.Time // when the last round began
	leading atomic.Bool
	policy  atomic.Pointer[policy]
}

// New checks cfg and connects to nothing.
func New(cfg Config) (*Controller, error) {
	if cfg.Log == nil || cfg.Server == "" || cfg.Ask == nil {
		return nil, errors.New("neighbour health: server, ask and log are required")
	}
	rest, err := kube.Config(cfg.Kubeconfig, "neighbour-health")
	if err != nil {
		return nil, err
	}
	rest.ContentType, rest.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	core := client.CoreV1().RESTClient()
	return &Controller{
		cfg: cfg, client: client, metrics: newGauges(), records: map[string]*memory{}, told: map[string]string{}, answers: make(chan answer, maxAsked),
		nodes:   newMirror(cache.NewListWatchFromClient(core, "nodes", metav1.NamespaceAll, fields.Everything()), &corev1.Node{}),
		leases:  newMirror(cache.NewListWatchFromClient(client.CoordinationV1().RESTClient(), "leases", corev1.NamespaceNodeLease, fields.Everything()), &coordinationv1.Lease{}),
		configs: newMirror(cache.NewListWatchFromClient(core, "configmaps", metav1.NamespaceAll, fields.OneTermEqualSelector("metadata.name", ConfigName)), &corev1.ConfigMap{}),
	}, nil
}

// mirror holds the objects of one kind, without what nobody here reads.
type mirror struct {
	store cache.Store
	loop  cache.Controller
}

func newMirror(source cache.ListerWatcher, example runtime.Object) *mirror {
	m := &mirror{}
	m.store, m.loop = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source, ObjectType: example, Handler: cache.ResourceEventHandlerFuncs{}, Transform: slim,
	})
	return m
}

// slim drops the bulk of an object.
func slim(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	if n, ok := object.(*corev1.Node); ok {
		n.Status.Images, n.Status.VolumesAttached, n.Status.VolumesInUse = nil, nil, nil
	}
	return object, nil
}

// Name implements supervisor.Component.
func (*Controller) Name() string { return "neighbour-health" }

// Ready implements supervisor.Component. Until the controller has looked, nothing may be evicted, which is safe.
func (*Controller) Ready(context.Context) error { return nil }

// tick is how often the nodes are judged.
const tick = time.Second

// Run implements supervisor.Component.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.metrics.register(); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	c.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kedge-neighbour-health"})
	for _, m := range []*mirror{c.nodes, c.leases, c.configs} {
		go m.loop.RunWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), c.nodes.loop.HasSynced, c.leases.loop.HasSynced, c.configs.loop.HasSynced) {
		return nil
	}
	stop := c.lead(ctx)
	defer stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		c.round(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// lead makes this server the one that acts, at once when it is the only one. The returned function waits until the lead is given up.
func (c *Controller) lead(ctx context.Context) (stop func()) {
	if c.cfg.Single {
		c.leading.Store(true)
		return func() {}
	}
	host, _ := os.Hostname()
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kedge-neighbour-health"}, Client: c.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: fmt.Sprintf("%s_%s_%d", c.cfg.Server, host, os.Getpid())},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { c.leading.Store(true) },
					OnStoppedLeading: func() { c.leading.Store(false) },
				},
			})
		}
	}()
	return func() { <-done }
}

// policy is what the API server asks, made new in each round.
type policy struct {
	evict, unready map[string]bool
}

// MayEvict says whether the pods of a node that is out of reach may be evicted. Of nodes not judged yet they may not.
func (c *Controller) MayEvict(node string) bool {
	p := c.policy.Load()
	return p != nil && p.evict[node]
}

// MayUnready says whether Kubernetes may declare the pods of a node not ready: when they may be evicted, and when the node itself has
// said that it is not ready.
func (c *Controller) MayUnready(node string) bool {
	p := c.policy.Load()
	return p != nil && p.unready[node]
}

// gauges are the metrics, which the API server of this process serves with its own.
type gauges struct {
	nodes *metrics.GaugeVec
	alone *metrics.Gauge
}

func newGauges() *gauges {
	return &gauges{
		nodes: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Name: "kedge_nodes", Help: "Nodes by how they stand with the server: Linked, Lost, CutOff, Dead or Expired.", StabilityLevel: metrics.ALPHA,
		}, []string{"state"}),
		alone: metrics.NewGauge(&metrics.GaugeOpts{
			Name: "kedge_server_alone", Help: "1 when the server hears from no node, which it takes for its own failure.", StabilityLevel: metrics.ALPHA,
		}),
	}
}

func (g *gauges) register() error {
	if err := legacyregistry.Register(g.nodes); err != nil {
		return err
	}
	return legacyregistry.Register(g.alone)
}

func (g *gauges) set(o verdict.Outcome) {
	count := map[verdict.State]int{verdict.Linked: 0, verdict.Lost: 0, verdict.CutOff: 0, verdict.Dead: 0, verdict.Expired: 0}
	for _, v := range o.Verdicts {
		count[v.State]++
	}
	for state, n := range count {
		g.nodes.WithLabelValues(string(state)).Set(float64(n))
	}
	alone := 0.0
	if o.Alone {
		alone = 1
	}
	g.alone.Set(alone)
}
