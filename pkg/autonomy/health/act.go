package health

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// The conditions of a node.
const (
	// LinkUp says whether the server hears from the node.
	LinkUp corev1.NodeConditionType = "LinkUp"
	// Autonomous says whether the node works on its own and keeps its pods; unknown when nobody knows how it is.
	Autonomous corev1.NodeConditionType = "Autonomous"
)

// conditions are what a verdict means.
func conditions(v verdict.Verdict, now metav1.Time) []corev1.NodeCondition {
	link, own := corev1.ConditionFalse, corev1.ConditionFalse
	switch v.State {
	case verdict.Linked:
		link = corev1.ConditionTrue
	case verdict.CutOff:
		own = corev1.ConditionTrue
	case verdict.Lost:
		own = corev1.ConditionUnknown
	}
	make := func(kind corev1.NodeConditionType, status corev1.ConditionStatus) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: string(v.State), Message: v.Why, LastTransitionTime: now, LastHeartbeatTime: now}
	}
	return []corev1.NodeCondition{make(LinkUp, link), make(Autonomous, own)}
}

// statusChange returns the conditions that a node should have and has not. A dead node is not ready as soon as that is known, and not
// when Kubernetes finds out.
func statusChange(n *corev1.Node, v verdict.Verdict, now metav1.Time) []corev1.NodeCondition {
	var change []corev1.NodeCondition
	for _, want := range conditions(v, now) {
		is := condition(n, want.Type)
		if is == nil || is.Status != want.Status || is.Reason != want.Reason {
			change = append(change, want)
		}
	}
	ready := condition(n, corev1.NodeReady)
	if v.State == verdict.Dead && ready != nil && ready.Status != corev1.ConditionUnknown {
		change = append(change, corev1.NodeCondition{
			Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NeighboursFoundItDead", Message: v.Why,
			LastHeartbeatTime: ready.LastHeartbeatTime, LastTransitionTime: now, // the heartbeat is the kubelet's
		})
	}
	return change
}

func condition(n *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &n.Status.Conditions[i]
}

// readiness is what stands in a node's condition Ready.
func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return corev1.ConditionUnknown
}

// wantTaints returns the taints that a node should have.
func wantTaints(n *corev1.Node, v verdict.Verdict) []corev1.Taint {
	evicted := v.State == verdict.Dead && v.Evict
	taints := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool {
		kept := t.Key == corev1.TaintNodeUnreachable && t.Effect == corev1.TaintEffectNoExecute && !v.Evict && v.State != verdict.Linked
		return isDeadTaint(t) && !evicted || kept
	})
	if evicted && !hasDeadTaint(n) {
		taints = append(taints, deadTaint())
	}
	return taints
}

// enact makes a node as the verdict on it says. The taints go first: their patch is for the version that was looked at.
func (c *Controller) enact(ctx context.Context, n *corev1.Node, m *memory, now time.Time) error {
	v := m.verdict
	if err := c.taint(ctx, n, v); err != nil {
		return err
	}
	if change := statusChange(n, v, metav1.NewTime(now)); len(change) > 0 {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": change}})
		if err != nil {
			return fmt.Errorf("write conditions: %w", err)
		}
		if _, err := c.client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			return ignoreGone("write conditions", err)
		}
	}
	if v.Evict && often(now.Sub(m.decided)) {
		return c.clear(ctx, n, v.State, now.Sub(m.heard))
	}
	return nil
}

// taint gives a node the taints that it should have, and says with SuperEdge's mark what ours means.
func (c *Controller) taint(ctx context.Context, n *corev1.Node, v verdict.Verdict) error {
	taints := wantTaints(n, v)
	if len(taints) == len(n.Spec.Taints) {
		return nil
	}
	meta := map[string]any{"resourceVersion": n.ResourceVersion}
	if is := slices.ContainsFunc(taints, isDeadTaint); is != hasDeadTaint(n) {
		var unhealthy any // removes the annotation
		if is {
			unhealthy = "yes"
		}
		meta["annotations"] = map[string]any{markUnhealthy: unhealthy}
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta, "spec": map[string]any{"taints": taints}})
	if err != nil {
		return fmt.Errorf("write taints: %w", err)
	}
	_, err = c.client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return ignoreGone("write taints", err)
}

// often says in which rounds the pods of an evicted node are looked at: in each at first, later in some.
func often(age time.Duration) bool {
	const busy, pause = time.Minute, 30
	return age < busy || int(age.Seconds())%pause == 0
}

// tell writes the neighbourhood of a node; an empty one is removed.
func (c *Controller) tell(ctx context.Context, n *corev1.Node, text string) error {
	if n.Annotations[note.Neighbourhood] == text {
		return nil
	}
	var value any
	if text != "" {
		value = text
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{note.Neighbourhood: value}}})
	if err != nil {
		return fmt.Errorf("write neighbourhood: %w", err)
	}
	_, err = c.client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return ignoreGone("write neighbourhood", err)
}

// ignoreGone wraps an error, unless it says that the object is gone or has changed: then the next round looks again.
func ignoreGone(step string, err error) error {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}
