package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// step is what happens to a pod of a node that is given up.
type step int

const (
	leave   step = iota
	unready      // out of Services
	evict        // deleted as an eviction does
	forget       // its deletion waits for a kubelet that is no more
)

// next decides on one pod of a node that has been silent for a time. The pods of a dead node are deleted by Kubernetes because of the
// taint; what is left to do is to forget them at once, so that a StatefulSet may make them anew, and to take those that stay out of Services. A
// node whose patience ended may still live: its pods are evicted as far as they do not tolerate the silence, and never forgotten.
func next(pod *corev1.Pod, state verdict.State, silence time.Duration) step {
	switch {
	case pod.DeletionTimestamp != nil && state == verdict.Dead && !tolerates(pod, deadTaint(), silence):
		return forget
	case pod.DeletionTimestamp != nil:
		return leave
	case state == verdict.Expired && !tolerates(pod, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}, silence):
		return evict
	case isReady(pod):
		return unready
	}
	return leave
}

// tolerates says whether a pod stays on a node with the taint for so long.
func tolerates(pod *corev1.Pod, taint corev1.Taint, silence time.Duration) bool {
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
			return false
		}
		if t.Operator != corev1.TolerationOpExists && t.Value != taint.Value {
			return false
		}
		return t.TolerationSeconds == nil || silence < time.Duration(*t.TolerationSeconds)*time.Second
	})
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// clear takes the next step with each pod of a node.
func (c *Controller) clear(ctx context.Context, n *corev1.Node, state verdict.State, silence time.Duration) error {
	pods, err := c.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Name).String(), ResourceVersion: "0",
	})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var errs []error
	for i := range pods.Items {
		pod := &pods.Items[i]
		errs = append(errs, c.take(ctx, pod, next(pod, state, silence)))
	}
	return errors.Join(errs...)
}

func (c *Controller) take(ctx context.Context, pod *corev1.Pod, s step) error {
	api := c.client.CoreV1().Pods(pod.Namespace)
	only := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	switch s {
	case unready:
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"conditions":[{"type":"Ready","status":"False","reason":"NodeGivenUp","lastTransitionTime":%q}]}}`,
			pod.UID, time.Now().UTC().Format(time.RFC3339))
		_, err := api.Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return ignoreGone("take pod out of services", err)
	case evict:
		return ignoreGone("evict pod", api.Delete(ctx, pod.Name, only))
	case forget:
		none := int64(0)
		only.GracePeriodSeconds = &none
		return ignoreGone("forget pod", api.Delete(ctx, pod.Name, only))
	}
	return nil
}
