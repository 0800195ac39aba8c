// Package controller carries out what placement decides: it watches grids, nodes and workloads, and writes the differences. A kind is
// watched from when its first object exists; a cluster without grids pays for nothing but the question. Only pkg/grid imports it.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/grid/units"
	"github.com/kedge-io/kedge/pkg/kube"
)

const (
	workers = 4  // keys that are worked on at once
	writers = 16 // requests that write, at once
	// settle is how long events of one set are collected before they are looked at together.
	settle = 20 * time.Millisecond
	// reask is how often a server that is not alone asks whether a kind is in use; alone it notices by itself.
	reask = 20 * time.Second
	// startup is how often it asks while the kinds are not there yet.
	startup = time.Second
)

// Config says what the controllers work with.
type Config struct {
	// Client is the configuration for the API server.
	Client *rest.Config
	// Alone says that no other server writes to the same datastore.
	Alone bool
	Log   *slog.Logger
}

// key is a piece of work.
type key struct {
	task            task
	kind            schema.GroupKind
	namespace, name string
}

// task is what a piece of work is about.
type task string

const (
	taskSet     task = "set"     // the workloads of a set
	taskStatus  task = "status"  // the status of a set
	taskService task = "service" // the Service of a ServiceGrid
	taskNames   task = "names"   // the common names of pods behind a Service
	taskNode    task = "node"    // what units and pools put on a node
	taskUnit    task = "unit"    // the status of a unit, group or pool
	taskGroups  task = "groups"  // the units that groups find by themselves
	taskStrays  task = "strays"  // pods on a node that left their unit
)

// Engine runs all controllers of the grid.
type Engine struct {
	cfg    Config
	kinds  dynamic.Interface
	client kubernetes.Interface
	queue  workqueue.TypedRateLimitingInterface[key]
	events record.EventRecorder
	write  chan struct{} // has room for writers

	inUse map[schema.GroupKind]chan struct{}
	wait  sync.WaitGroup
	done  context.Context // of Run; watches live as long

	mu      sync.Mutex
	stores  map[schema.GroupKind]cache.SharedIndexInformer
	told    map[schema.GroupKind]cache.ResourceEventHandlerRegistration
	known   map[schema.GroupKind]bool // whether objects of the kind are known to be there, or not to be
	nodes   *units.Index
	sets    map[key]*setState
	checked map[types.UID]int64 // workload -> generation at which its spec was right
	members members
}

// New prepares the controllers; it does not connect.
func New(cfg Config) (*Engine, error) {
	kinds, err := dynamic.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("make grid client: %w", err)
	}
	binary := rest.CopyConfig(cfg.Client)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("make grid client: %w", err)
	}
	e := &Engine{
		cfg: cfg, kinds: kinds, client: client, write: make(chan struct{}, writers), inUse: map[schema.GroupKind]chan struct{}{},
		stores: map[schema.GroupKind]cache.SharedIndexInformer{}, told: map[schema.GroupKind]cache.ResourceEventHandlerRegistration{}, known: map[schema.GroupKind]bool{}, nodes: units.NewIndex(), sets: map[key]*setState{}, checked: map[types.UID]int64{},
		members: newMembers(),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[key](100*time.Millisecond, 30*time.Second)),
	}
	for gk := range watchedKinds() {
		e.inUse[gk] = make(chan struct{}, 1)
	}
	return e, nil
}

// Use says that an object of the kind is about to exist. It does not wait.
func (e *Engine) Use(gk schema.GroupKind) {
	select {
	case e.inUse[gk] <- struct{}{}:
	default:
	}
}

// Run works until ctx is done.
func (e *Engine) Run(ctx context.Context) error {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: e.client.CoreV1().Events("")})
	defer broadcaster.Shutdown()
	e.events = broadcaster.NewRecorder(scheme.Scheme, eventSource())
	e.done = ctx
	for gk, version := range watchedKinds() {
		e.wait.Go(func() { e.activate(ctx, gk, version) })
	}
	for range workers {
		e.wait.Go(func() { e.work(ctx) })
	}
	<-ctx.Done()
	e.queue.ShutDown()
	e.wait.Wait()
	return nil
}

// activate waits until there is an object of the kind, and begins to watch it.
func (e *Engine) activate(ctx context.Context, gk schema.GroupKind, version string) {
	resource := resourceOf(gk, version)
	for ctx.Err() == nil {
		found, err := e.kinds.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil && len(found.Items) > 0 {
			break
		}
		e.know(gk, err == nil)
		pause := reask
		if err != nil {
			pause = startup
		}
		var again <-chan time.Time
		if err != nil || !e.cfg.Alone {
			again = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			continue
		case <-e.inUse[gk]:
		}
		break
	}
	if ctx.Err() == nil {
		e.start(gk, version)
		e.know(gk, true)
	}
}

// know notes that a kind has been asked for.
func (e *Engine) know(gk schema.GroupKind, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[gk] = e.known[gk] || known
}

// early says whether a decision would be made without knowing all that it depends on: what units and pools there are.
func (e *Engine) early(k key) bool {
	if k.task == taskService || k.task == taskNames || k.task == taskStrays || k.task == taskSet && k.kind.Group != v1beta1.Group {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.known[nodeUnits()] || !e.known[nodeGroups()] || !e.known[nodePools()]
}

// work takes keys from the queue until it is shut down.
func (e *Engine) work(ctx context.Context) {
	for {
		k, stop := e.queue.Get()
		if stop {
			return
		}
		err := e.do(ctx, k)
		switch {
		case err == nil:
			e.queue.Forget(k)
		case ctx.Err() == nil:
			if !kube.Unavailable(err) {
				e.cfg.Log.Debug("grid will be tried again", "task", k.task, "kind", k.kind.Kind, "namespace", k.namespace, "name", k.name, "reason", err)
			}
			e.queue.AddRateLimited(k)
		}
		e.queue.Done(k)
	}
}

func (e *Engine) do(ctx context.Context, k key) error {
	if e.early(k) {
		e.queue.AddAfter(k, startup/4)
		return nil
	}
	switch k.task {
	case taskSet:
		return e.syncSet(ctx, k)
	case taskStatus:
		return e.syncStatus(ctx, k)
	case taskService:
		return e.syncService(ctx, k)
	case taskNames:
		return e.syncNames(ctx, k)
	case taskNode:
		return e.syncNode(ctx, k.name)
	case taskUnit:
		return e.syncMember(ctx, k)
	case taskGroups:
		return e.syncGroups(ctx)
	case taskStrays:
		return e.syncStrays(ctx, k.name)
	}
	return nil
}
