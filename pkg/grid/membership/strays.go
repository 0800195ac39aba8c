package membership

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// UnitLabels are the labels of a pod of ours that name its unit.
func UnitLabels() []string { return []string{placement.LabelUnit, v1beta1.LabelPoolName} }

// Stray says whether a pod is of a unit in which its node is not: it was made for one value of a key, and the node has another.
func Stray(p *corev1.Pod, labels map[string]string, keys []string) bool {
	if metav1.GetControllerOf(p) == nil {
		return false
	}
	for _, label := range UnitLabels() {
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
