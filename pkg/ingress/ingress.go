// Package ingress leads HTTP from outside to Services, as Ingress and Gateway API objects say, on ports of the server nodes themselves.
//
// Two watches are all there is until the first Ingress or Gateway exists: no port is open and nothing else is known. When the last one
// has gone, all of it is dropped again. Only the server mode may import it; it imports no other feature.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/kedge-io/kedge/pkg/ingress/route"
	"github.com/kedge-io/kedge/pkg/kube"
)

const (
	// settle gathers changes that come together.
	settle = 100 * time.Millisecond
	// again is how often everything is looked at without a change: addresses of nodes, ports that were taken.
	again = 30 * time.Second
	// linger is how long all stays open after the last Ingress or Gateway has gone.
	linger = time.Minute
)

// Config says what the controller works with.
type Config struct {
	// Kubeconfig is of an identity that may read Secrets and write the statuses.
	Kubeconfig string
	// ReservedPorts are ports of the node that no Gateway may take.
	ReservedPorts []int
	Log           *slog.Logger
}

// Controller is the component "ingress". Each server runs one; all come to the same result.
type Controller struct {
	cfg      Config
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
	changed  chan struct{}
	ports    *ports
}

// New checks cfg, connects nothing, opens nothing and starts nothing.
func New(cfg Config) (*Controller, error) {
	if cfg.Kubeconfig == "" || cfg.Log == nil {
		return nil, errors.New("ingress: Kubeconfig and Log are required")
	}
	rc, err := kube.Config(cfg.Kubeconfig, "ingress")
	if err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, changed: make(chan struct{}, 1)}
	if c.dynamic, err = dynamic.NewForConfig(rc); err != nil {
		return nil, fmt.Errorf("make ingress client: %w", err)
	}
	if c.metadata, err = metadata.NewForConfig(rc); err != nil {
		return nil, fmt.Errorf("make ingress client: %w", err)
	}
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = rc.ContentType + ",application/json"
	if c.client, err = kubernetes.NewForConfig(rc); err != nil {
		return nil, fmt.Errorf("make ingress client: %w", err)
	}
	c.ports = newPorts(cfg.Log)
	return c, nil
}

// Name implements supervisor.Component.
func (*Controller) Name() string { return "ingress" }

// Ready implements supervisor.Component: nobody on this machine waits for it.
func (*Controller) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (c *Controller) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	first := newStores(c.wake)
	first.watch(c.client.NetworkingV1().RESTClient(), ingresses, &networkingv1.Ingress{})
	running.Go(func() { first.run(ctx) })
	gateways := newStores(c.wake)
	running.Go(func() {
		if c.awaitGatewayAPI(ctx) {
			gateways.watchDynamic(c.dynamic, gatewayKind())
			gateways.run(ctx)
		}
	})
	var rest *all // while there is something to serve
	var stop func()
	var emptySince time.Time
	for ctx.Err() == nil {
		wanted := first.synced() && len(first.list(ingresses)) > 0 || len(gateways.list(gatewayKind().Resource)) > 0
		switch {
		case wanted && rest == nil:
			var err error
			if rest, stop, err = c.start(ctx, &running); err != nil {
				return err
			}
			emptySince = time.Time{}
		case wanted:
			emptySince = time.Time{}
		case rest != nil && emptySince.IsZero():
			emptySince = time.Now()
		case rest != nil && time.Since(emptySince) > linger:
			stop()
			rest = nil
			c.ports.apply(nil, nil)
		}
		if rest != nil && rest.synced() {
			rest.ingresses, rest.gateways = first, gateways
			c.reconcile(ctx, rest)
		}
		c.await(ctx, rest != nil)
	}
	if stop != nil {
		stop()
	}
	c.ports.apply(nil, nil)
	return nil
}

// await returns after a change, or when it is time to look again.
func (c *Controller) await(ctx context.Context, busy bool) {
	timer := time.NewTimer(again)
	defer timer.Stop()
	tick := timer.C
	if !busy {
		tick = nil
	}
	select {
	case <-ctx.Done():
	case <-tick:
	case <-c.changed:
		select {
		case <-ctx.Done():
		case <-time.After(settle):
		}
	}
}

func (c *Controller) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// reconcile makes ports and statuses what the objects say.
func (c *Controller) reconcile(ctx context.Context, a *all) {
	addresses, err := c.addresses(ctx)
	if err != nil {
		c.cfg.Log.Debug("addresses of servers not known", "error", err)
		return
	}
	w := a.world()
	w.Addresses, w.Reserved = addresses, c.cfg.ReservedPorts
	w.Pair = a.pairs.of(ctx, c.client.CoreV1(), a.version)
	outcome := route.Build(w)
	c.ports.apply(outcome.Ports, a.fallback)
	if err := c.publish(ctx, w, outcome); err != nil && ctx.Err() == nil {
		c.cfg.Log.Debug("statuses will be written again", "error", err)
		time.AfterFunc(retry, c.wake)
	}
}

// addresses are those of all servers that carry a node: clients may go to any.
func (c *Controller) addresses(ctx context.Context) ([]string, error) {
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/control-plane", ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range nodes.Items {
		out = append(out, addressesOf(&nodes.Items[i])...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// addressesOf are the external addresses of a node, or else its internal ones.
func addressesOf(node *corev1.Node) []string {
	by := map[corev1.NodeAddressType][]string{}
	for _, a := range node.Status.Addresses {
		by[a.Type] = append(by[a.Type], a.Address)
	}
	if external := by[corev1.NodeExternalIP]; len(external) > 0 {
		return external
	}
	return by[corev1.NodeInternalIP]
}
