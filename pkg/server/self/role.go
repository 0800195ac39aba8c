// Package self writes what a server knows about itself into the API: its role on its Node, and what its datastore had to repair. Only server
// imports it.
package self

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// roleLabel is what kubectl shows as the role of a node. A kubelet may not set it on itself.
const roleLabel = "node-role.kubernetes.io/control-plane"

// NewRole is the component that marks the node on this machine as a server.
func NewRole(kubeconfig, node string) (supervisor.Component, error) {
	cfg, err := kube.Config(kubeconfig, "kedge-node-role")
	if err != nil {
		return nil, fmt.Errorf("prepare node role: %w", err)
	}
	var done atomic.Bool
	return supervisor.Func{
		ID: "node-role",
		Do: func(ctx context.Context) error { return markServer(ctx, cfg, node, &done) },
		Check: func(context.Context) error {
			if done.Load() {
				return nil
			}
			return errors.New("waiting for the node to register")
		},
	}, nil
}

// markServer sets the label as soon as the node is there; it stays on the Node.
func markServer(ctx context.Context, cfg *rest.Config, node string, done *atomic.Bool) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	patch := []byte(`{"metadata":{"labels":{"` + roleLabel + `":"true"}}}`)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err == nil {
			done.Store(true)
			<-ctx.Done()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
