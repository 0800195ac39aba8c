package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

// Membership is what the datastore knows of its servers.
type Membership interface {
	// Remove takes the server of a node out; a node without one is no error.
	Remove(ctx context.Context, node string) error
	// Noted lists the nodes of servers that are known, and Note adds one or forgets it. They outlive the server that leads.
	Noted(ctx context.Context) ([]string, error)
	Note(ctx context.Context, node string, is bool) error
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
		w := warden{client, members}
		for {
			wait := time.Hour
			if nodes.HasSynced() {
				if err := w.look(ctx, nodes.GetStore().ListKeys()); err != nil && ctx.Err() == nil {
					log.Warn("a server whose Node was deleted may still be in the datastore, trying again", "error", err)
					wait = 10 * time.Second
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

type warden struct {
	client  kubernetes.Interface
	members Membership
}

// look compares the nodes of servers that there are with those that were noted.
func (w warden) look(ctx context.Context, present []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	noted, err := w.members.Noted(ctx)
	if err != nil {
		return err
	}
	added, gone := compare(noted, present)
	var failed error
	for _, node := range added {
		failed = errors.Join(failed, w.members.Note(ctx, node, true))
	}
	for _, node := range gone {
		if err := w.dismiss(ctx, node); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", node, err))
		}
	}
	return failed
}

// dismiss removes the server of a node that is gone; one that only lost its label is forgotten.
func (w warden) dismiss(ctx context.Context, node string) error {
	_, err := w.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = w.members.Remove(ctx, node)
	}
	if err != nil {
		return err
	}
	return w.members.Note(ctx, node, false)
}

// compare returns what is present and not noted, and what is noted and not present.
func compare(noted, present []string) (added, gone []string) {
	without := func(all, some []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(some, one) })
	}
	return without(present, noted), without(noted, present)
}
