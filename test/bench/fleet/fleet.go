// Package fleet makes a large fleet of simulated nodes with grids on them, for the bench.
package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Key is the node label whose values are the units.
const Key = "bench-unit"

// Arguments are those of a server that nobody but the simulated nodes is to bother: their addresses have room, nobody misses their
// heartbeats, and requests are noted.
func Arguments() []string {
	return []string{
		"--cluster-cidr=10.128.0.0/12", "--kube-controller-manager-arg=node-monitor-grace-period=24h",
		"--kube-apiserver-arg=audit-policy-file=" + Policy, "--kube-apiserver-arg=audit-log-path=" + Log,
	}
}

// Fleet is nodes and grids in a cluster.
type Fleet struct {
	cfg   *rest.Config
	log   string
	nodes *kubernetes.Clientset
	grids dynamic.NamespaceableResourceInterface
	// Units and Grids are how many there are to be.
	Units, Grids int
}

// New prepares a fleet in the cluster of cfg, whose server has Arguments and notes requests in the file log.
func New(cfg *rest.Config, log string, units, grids int) (*Fleet, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.UserAgent = -1, "bench"
	nodes, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	kinds, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	resource := schema.GroupVersionResource{Group: "superedge.io", Version: "v1", Resource: "deploymentgrids"}
	return &Fleet{cfg: cfg, log: log, nodes: nodes, grids: kinds.Resource(resource), Units: units, Grids: grids}, nil
}

// AddNodes makes a node for each unit.
func (f *Fleet) AddNodes(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, f.Units)
	room := make(chan struct{}, 16)
	for i := range f.Units {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			n := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("fleet-%d", i), Labels: map[string]string{Key: fmt.Sprintf("u%d", i)}},
				Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated"}}},
			}
			if _, err := f.nodes.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// AddGrids makes the grids; their workloads have no pods.
func (f *Fleet) AddGrids(ctx context.Context) error {
	for i := range f.Grids {
		name := fmt.Sprintf("grid-%d", i)
		labels := map[string]any{"app": name}
		obj := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "superedge.io/v1", "kind": "DeploymentGrid", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"gridUniqKey": Key, "template": map[string]any{
				"replicas": int64(0), "selector": map[string]any{"matchLabels": labels},
				"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": map[string]any{
					"containers": []any{map[string]any{"name": "c", "image": "kedge.local/none:1"}}}},
			}},
		}}
		if _, err := f.grids.Namespace("default").Create(ctx, obj, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// Made says how many workloads are missing.
func (f *Fleet) Made(ctx context.Context) error {
	list, err := f.nodes.AppsV1().Deployments("default").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	have := int64(len(list.Items))
	if list.RemainingItemCount != nil {
		have += *list.RemainingItemCount
	}
	if want := int64(f.Units * f.Grids); have != want {
		return fmt.Errorf("%d workloads of %d", have, want)
	}
	return nil
}

// Settled says what is still missing: every grid must have so many units, all of them ready.
func (f *Fleet) Settled(ctx context.Context, units int) error {
	list, err := f.grids.Namespace("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, g := range list.Items {
		have, _, _ := unstructured.NestedInt64(g.Object, "status", "units")
		ready, _, _ := unstructured.NestedInt64(g.Object, "status", "readyUnits")
		if have != int64(units) || ready != have {
			return fmt.Errorf("%s has %d units, %d of them ready", g.GetName(), have, ready)
		}
	}
	return nil
}

// Move gives one node to another unit.
func (f *Fleet) Move(ctx context.Context, node int, unit string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, Key, unit)
	_, err := f.nodes.CoreV1().Nodes().Patch(ctx, fmt.Sprintf("fleet-%d", node), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// Quiet is how long to wait after a change until all its consequences are written.
const Quiet = 15 * time.Second
