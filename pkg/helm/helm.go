// Package helm installs what HelmChart objects ask for, with Helm's own library: no job, no pod, no image.
//
// Nothing but one watch exists until there is a HelmChart; what Helm learns of the cluster is dropped after each piece of work.
// Only the server mode may import it; it imports no other feature.
package helm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
	"github.com/kedge-io/kedge/pkg/kube"
)

const (
	// settle gathers changes that come together.
	settle = 200 * time.Millisecond
	// retry is the time between attempts while the API cannot be asked, or does not know the kinds yet.
	retry = 2 * time.Second
	// watchTime is how long one watch lasts.
	watchTime = 10 * time.Minute
	// atOnce is how many charts are worked on at the same time.
	atOnce = 2
)

// Config says what the controller works with.
type Config struct {
	// Kubeconfig is of an identity that may do everything: charts hold whatever they like.
	Kubeconfig string
	// Server is the name of this server. Single says that there is no other, so that nobody needs to be elected.
	Server string
	Single bool
	Log    *slog.Logger
}

// Controller is the component "helm". Of several servers one works.
type Controller struct {
	cfg     Config
	rest    *rest.Config
	dynamic dynamic.Interface
	core    corev1client.CoreV1Interface
	leases  coordinationv1client.CoordinationV1Interface
}

// New checks cfg, connects nothing and starts nothing.
func New(cfg Config) (*Controller, error) {
	if cfg.Kubeconfig == "" || cfg.Log == nil {
		return nil, errors.New("helm: Kubeconfig and Log are required")
	}
	rc, err := kube.Config(cfg.Kubeconfig, "helm")
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make helm client: %w", err)
	}
	core, err := corev1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make helm client: %w", err)
	}
	leases, err := coordinationv1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make helm client: %w", err)
	}
	return &Controller{cfg: cfg, rest: rc, dynamic: dyn, core: core, leases: leases}, nil
}

// Name implements supervisor.Component.
func (*Controller) Name() string { return "helm" }

// Ready implements supervisor.Component: charts take their time, and nobody waits for them.
func (*Controller) Ready(context.Context) error { return nil }

// Run implements supervisor.Component. Work that is cut off by the end of ctx is done again at the next start.
func (c *Controller) Run(ctx context.Context) error {
	if c.cfg.Single {
		c.loop(ctx)
		return nil
	}
	host, _ := os.Hostname() // only to tell servers apart
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kedge-helm"}, Client: c.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: fmt.Sprintf("%s_%s_%d", c.cfg.Server, host, os.Getpid())},
	}
	for ctx.Err() == nil {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second, RetryPeriod: 5 * time.Second, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: c.loop, OnStoppedLeading: func() {}},
		})
	}
	return nil
}

func (c *Controller) loop(ctx context.Context) {
	d := &desk{work: c.work, log: c.cfg.Log, ctx: ctx, done: make(chan finished), over: make(chan struct{}), busy: map[string]bool{}, seen: map[string]string{}, due: map[string]time.Time{}}
	for ctx.Err() == nil {
		if err := c.round(ctx, d); err != nil && ctx.Err() == nil {
			c.cfg.Log.Debug("helm charts cannot be read", "error", err)
			d.pause(retry)
		}
	}
	d.wait()
}

// round reads everything, hands out work, and waits for a change.
func (c *Controller) round(ctx context.Context, d *desk) error {
	charts, version, err := list[v1.HelmChart](ctx, c.dynamic, v1.Charts())
	if err != nil {
		return err
	}
	var configs []v1.HelmChartConfig
	configVersion := ""
	if len(charts) > 0 {
		if configs, configVersion, err = list[v1.HelmChartConfig](ctx, c.dynamic, v1.Configs()); err != nil {
			return err
		}
	}
	d.charts, d.configs = charts, map[string]*v1.HelmChartConfig{}
	for i := range configs {
		d.configs[configs[i].Namespace+"/"+configs[i].Name] = &configs[i]
	}
	changes, err := c.watch(ctx, v1.Charts(), version)
	if err != nil {
		return err
	}
	defer changes.Stop()
	var others watch.Interface = watch.NewFake()
	if configVersion != "" {
		if others, err = c.watch(ctx, v1.Configs(), configVersion); err != nil {
			return err
		}
	}
	defer others.Stop()
	d.serve(changes.ResultChan(), others.ResultChan())
	return nil
}

func (c *Controller) watch(ctx context.Context, resource schema.GroupVersionResource, version string) (watch.Interface, error) {
	seconds := int64(watchTime / time.Second)
	return c.dynamic.Resource(resource).Watch(ctx, metav1.ListOptions{ResourceVersion: version, TimeoutSeconds: &seconds})
}

// list reads all objects of a kind, and the version to watch from. A kind that is not defined yet is an error like any other.
func list[T any](ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource) ([]T, string, error) {
	found, err := client.Resource(resource).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("list %s: %w", resource.Resource, err)
	}
	out := make([]T, 0, len(found.Items))
	for i := range found.Items {
		var one T
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Items[i].Object, &one); err != nil {
			return nil, "", fmt.Errorf("read %s %s: %w", resource.Resource, found.Items[i].GetName(), err)
		}
		out = append(out, one)
	}
	return out, found.GetResourceVersion(), nil
}

// matters says whether a change is more than what we wrote ourselves: states are told apart by generation and deletion.
func matters(e watch.Event, charts []v1.HelmChart) bool {
	obj, ok := e.Object.(*unstructured.Unstructured)
	if !ok || e.Type != watch.Modified {
		return e.Type != watch.Bookmark
	}
	for i := range charts {
		if charts[i].UID == obj.GetUID() {
			return charts[i].Generation != obj.GetGeneration() || (charts[i].DeletionTimestamp == nil) != (obj.GetDeletionTimestamp() == nil) ||
				len(charts[i].Finalizers) != len(obj.GetFinalizers())
		}
	}
	return true
}
