package server

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// renewEvery is the longest time between two renewals of the lease of a node whose next ping is not due yet. It is well below
// the time after which the node would count as lost (node-monitor-grace-period).
const renewEvery = 25 * time.Second

// heartbeats renew the leases of the nodes that speak up through the tunnel, so that they need not do so themselves: a renewal
// over the link would be ten times as long as a ping.
type heartbeats struct {
	mu    sync.Mutex
	nodes map[string]pulse
	wake  chan struct{}
}

// pulse is what is known of one node.
type pulse struct {
	beat, renewed time.Time
	period        time.Duration
}

func newHeartbeats() *heartbeats {
	return &heartbeats{nodes: map[string]pulse{}, wake: make(chan struct{}, 1)}
}

// beat takes a ping; period is the time until the next.
func (h *heartbeats) beat(node string, period time.Duration) {
	h.mu.Lock()
	p := h.nodes[node]
	p.beat, p.period = time.Now(), period
	h.nodes[node] = p
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// due decides whether a lease is to be renewed now: once for each ping, and in between when the next one is far away.
func (p pulse) due(now time.Time) bool {
	if p.beat.After(p.renewed) {
		return true
	}
	return now.Sub(p.renewed) >= renewEvery && now.Sub(p.beat) <= p.period-renewEvery
}

// take returns the nodes that are due and counts them as renewed. Those that have been silent for long are forgotten.
func (h *heartbeats) take(now time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for node, p := range h.nodes {
		switch {
		case p.due(now):
			p.renewed = now
			h.nodes[node] = p
			out = append(out, node)
		case now.Sub(p.beat) > time.Hour:
			delete(h.nodes, node)
		}
	}
	return out
}

// component is the part of the server that writes.
func (h *heartbeats) component(kubeconfig string) (supervisor.Component, error) {
	cfg, err := kube.Config(kubeconfig, "heartbeats")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return supervisor.Func{ID: "heartbeats", Do: func(ctx context.Context) error {
		tick := time.NewTicker(renewEvery / 5)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-h.wake:
			case <-tick.C:
			}
			for _, node := range h.take(time.Now()) {
				if err := renew(ctx, client, node); err != nil && ctx.Err() == nil {
					h.again(node)
				}
			}
		}
	}}, nil
}

// again has a renewal that failed repeated with the next tick.
func (h *heartbeats) again(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.nodes[node]
	p.renewed = time.Time{}
	h.nodes[node] = p
}

// renew writes the time into the lease of a node, and makes the lease where the kubelet has not: it tries once while the node is
// being registered, and then not again for long.
func renew(ctx context.Context, client kubernetes.Interface, node string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": metav1.NowMicro()}})
	if err != nil {
		return err
	}
	_, err = client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return create(ctx, client, node)
	}
	return err
}

// create makes the lease as a kubelet does. A node that is not registered gets none.
func create(ctx context.Context, client kubernetes.Interface, name string) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now, seconds := metav1.NowMicro(), int32(40)
	_, err = client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}, metav1.CreateOptions{})
	return err
}
