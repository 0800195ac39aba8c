package helm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

const (
	// finalizer keeps a HelmChart until its release is gone.
	finalizer = "kedge.io/helm-release"
	// maxMessage bounds what is told of an error.
	maxMessage = 1000
)

// Reasons of the conditions, and of Events.
const (
	reasonInstalled  = "Installed"
	reasonFailed     = "Failed"
	reasonRolledBack = "RolledBack"
	reasonInvalid    = "Invalid"
	reasonWorking    = "Working"
)

// hold adds or removes the finalizer.
func (c *Controller) hold(ctx context.Context, chart *v1.HelmChart, want bool) error {
	var keep []string
	for _, f := range chart.Finalizers {
		if f != finalizer {
			keep = append(keep, f)
		}
	}
	if want {
		keep = append(keep, finalizer)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": keep, "resourceVersion": chart.ResourceVersion}})
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(v1.Charts()).Namespace(chart.Namespace).Patch(ctx, chart.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write finalizer: %w", err)
	}
	return nil
}

// note writes the status of a chart, with conditions set from reason and message.
func (c *Controller) note(ctx context.Context, chart *v1.HelmChart, status v1.HelmChartStatus, reason, message string) error {
	ready, failed := metav1.ConditionFalse, metav1.ConditionTrue
	switch reason {
	case reasonInstalled:
		ready, failed = metav1.ConditionTrue, metav1.ConditionFalse
	case reasonWorking:
		failed = metav1.ConditionFalse
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	conditions := append([]metav1.Condition(nil), chart.Status.Conditions...)
	now := metav1.NewTime(time.Now())
	for kind, value := range map[string]metav1.ConditionStatus{v1.ConditionReady: ready, v1.ConditionFailed: failed} {
		one := metav1.Condition{Type: kind, Status: value, Reason: reason, Message: message, ObservedGeneration: chart.Generation, LastTransitionTime: now}
		meta.RemoveStatusCondition(&conditions, kind) // the time is that of the last attempt: retries count from it
		meta.SetStatusCondition(&conditions, one)
	}
	status.Conditions = conditions
	patch, err := json.Marshal(map[string]any{"status": status, "metadata": map[string]any{"uid": chart.UID}})
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(v1.Charts()).Namespace(chart.Namespace).Patch(ctx, chart.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	chart.Status = status
	return nil
}

// tell records an Event about a chart. That an Event is lost is no reason to do anything.
func (c *Controller) tell(ctx context.Context, chart *v1.HelmChart, kind, reason, message string) {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	now := metav1.NewTime(time.Now())
	_, err := c.core.Events(chart.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "helmchart-", Namespace: chart.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: v1.Group + "/" + v1.Version, Kind: "HelmChart", Namespace: chart.Namespace, Name: chart.Name, UID: chart.UID,
		},
		Type: kind, Reason: reason, Message: message, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: "kedge-helm"}, ReportingController: "kedge-helm",
	}, metav1.CreateOptions{})
	if err != nil {
		c.cfg.Log.Debug("event not recorded", "chart", chart.Name, "error", err)
	}
}
