package server

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// recoveryReport is the component that says in an Event what the datastore had to repair at this start.
func (s *Server) recoveryReport() (supervisor.Component, error) {
	cfg, err := kube.Config(s.certs.SupervisorKubeconfig, "kedge-datastore")
	if err != nil {
		return nil, fmt.Errorf("prepare datastore report: %w", err)
	}
	return supervisor.Func{ID: "datastore-report", Do: func(ctx context.Context) error {
		if r := s.store.Recovery(); r != nil {
			client, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				return fmt.Errorf("make client: %w", err)
			}
			if _, err := client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, recoveryEvent(s.cfg.NodeName, *r), metav1.CreateOptions{}); err != nil {
				s.log.Warn("no Event about the repair of the datastore", "error", err)
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
