package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// page is how many pods are read at once when all are looked at.
const page = 500

// syncStrays removes pods of a unit from a node that left the unit, so that they are made again where the unit is: Kubernetes looks at
// node labels only when it places a pod. Without a node it looks at all nodes once, for those that changed while nobody watched.
func (e *Engine) syncStrays(ctx context.Context, node string) error {
	if node != "" {
		_, err := e.strays(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		return err
	}
	for _, label := range unitLabels() {
		o := metav1.ListOptions{LabelSelector: label, Limit: page}
		for more := true; more; more = o.Continue != "" {
			var err error
			if o.Continue, err = e.strays(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// unitLabels are the labels of a pod of ours that name its unit.
func unitLabels() []string { return []string{placement.LabelUnit, v1beta1.LabelPoolName} }

// strays removes the strays among some pods, and returns where the next ones begin.
func (e *Engine) strays(ctx context.Context, some metav1.ListOptions) (string, error) {
	pods, err := e.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, some)
	if err != nil {
		return "", fmt.Errorf("list pods: %w", err)
	}
	keys := e.keys()
	for i := range pods.Items {
		p := &pods.Items[i]
		o, known, _ := e.store(kindNode()).GetByKey(p.Spec.NodeName)
		node, ok := o.(*corev1.Node)
		if !known || !ok || p.DeletionTimestamp != nil || !stray(p, node.Labels, keys) {
			continue
		}
		uid := p.UID
		err := e.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return "", fmt.Errorf("remove pod %s from %s: %w", p.Name, p.Spec.NodeName, err)
		}
		e.events.Eventf(p, corev1.EventTypeNormal, "LeftUnit", "removed: node %s is not in the unit any more", p.Spec.NodeName)
	}
	return pods.Continue, nil
}

// keys are the node labels whose values are the units of sets.
func (e *Engine) keys() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := map[string]bool{}
	var out []string
	for _, s := range e.sets {
		if s.key != "" && !seen[s.key] {
			seen[s.key] = true
			out = append(out, s.key)
		}
	}
	return out
}

// stray says whether a pod is of a unit in which its node is not: it was made for one value of a key, and the node has another.
func stray(p *corev1.Pod, labels map[string]string, keys []string) bool {
	if metav1.GetControllerOf(p) == nil {
		return false
	}
	for _, label := range unitLabels() {
		unit := p.Labels[label]
		if unit == "" {
			continue
		}
		for _, key := range keys {
			if p.Spec.NodeSelector[key] == unit && labels[key] != unit {
				return true
			}
		}
	}
	return false
}
