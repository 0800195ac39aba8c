package self

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// NewRecoveryReport is the component that says in an Event on a node what the datastore had to repair at this start. recovery
// returns nil when that was nothing; it is asked when the component runs.
func NewRecoveryReport(kubeconfig, node string, recovery func() *datastore.Recovery, log *slog.Logger) (supervisor.Component, error) {
	cfg, err := kube.Config(kubeconfig, "kedge-datastore")
	if err != nil {
		return nil, fmt.Errorf("prepare datastore report: %w", err)
	}
	return supervisor.Func{ID: "datastore-report", Do: func(ctx context.Context) error {
		if r := recovery(); r != nil {
			client, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				return fmt.Errorf("make client: %w", err)
			}
			if _, err := client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, recoveryEvent(node, *r), metav1.CreateOptions{}); err != nil {
				log.Warn("no Event about the repair of the datastore", "error", err)
			}
		}
		<-ctx.Done()
		return nil
	}}, nil
}

// recoveryEvent is about the node of this server: kubectl describe node shows it.
func recoveryEvent(node string, r datastore.Recovery) *corev1.Event {
	message := fmt.Sprintf("The datastore was damaged (%s) and repaired without loss.", r.Reason)
	if r.Kept != "" {
		message = fmt.Sprintf("The datastore was damaged (%s). The snapshot of %s took its place: what was written after it is lost. The damaged files are in %s.",
			r.Reason, r.Snapshot.Time.UTC().Format(time.RFC3339), r.Kept)
	}
	now := metav1.NewTime(r.Time)
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "kedge-datastore-", Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: node, UID: "", APIVersion: "v1"},
		Type:           corev1.EventTypeWarning, Reason: "DatastoreRepaired", Message: message,
		Source: corev1.EventSource{Component: "kedge", Host: node}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}
