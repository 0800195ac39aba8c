package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// RoleLabel marks the nodes of servers.
const RoleLabel = "node-role.kubernetes.io/control-plane"

// Membership takes nodes out of the datastore.
type Membership interface {
	Remove(ctx context.Context, node string) error
}

// NewWarden is the component that takes a server out of the datastore when its Node is deleted. It must run on one server only.
func NewWarden(kubeconfig string, members Membership, log *slog.Logger) (supervisor.Component, error) {
	cfg, err := kube.Config(kubeconfig, "datastore-members")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return supervisor.Func{ID: "datastore-members", Do: func(ctx context.Context) error {
		changed := make(chan struct{}, 1)
		nodes := peers.WatchLabeled(client.CoreV1().RESTClient(), "nodes", RoleLabel, &corev1.Node{}, changed)
		go nodes.RunWithContext(ctx)
		known := map[string]bool{}
		for {
			wait := time.Hour
			if nodes.HasSynced() {
				for _, gone := range missing(known, nodes.GetStore().ListKeys()) {
					if _, err := client.CoreV1().Nodes().Get(ctx, gone, metav1.GetOptions{}); err == nil { // only its label has gone
						delete(known, gone)
						continue
					} else if !apierrors.IsNotFound(err) {
						wait = 10 * time.Second
						continue
					}
					if err := members.Remove(ctx, gone); err != nil && ctx.Err() == nil {
						log.Warn("a server whose Node was deleted is still in the datastore, trying again", "server", gone, "error", err)
						wait = 10 * time.Second
						continue
					}
					delete(known, gone)
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-time.After(wait):
			}
		}
	}}, nil
}

// missing adds the present names to the known ones and returns those of them that are gone.
func missing(known map[string]bool, present []string) []string {
	there := map[string]bool{}
	for _, name := range present {
		known[name], there[name] = true, true
	}
	var out []string
	for name := range known {
		if !there[name] {
			out = append(out, name)
		}
	}
	return out
}
