// Package v1alpha1 is what apps.openyurt.io/v1alpha1 alone has: YurtAppDaemon, UnitedDeployment, and the shape that the latter shares
// with the old YurtAppSet. Data only; anyone may import it.
package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names of the API.
const (
	Group                = "apps.openyurt.io"
	Version              = "v1alpha1"
	KindYurtAppDaemon    = "YurtAppDaemon"
	KindUnitedDeployment = "UnitedDeployment"
)

// SetSpec is the spec of a UnitedDeployment and of a YurtAppSet of this version.
type SetSpec struct {
	Selector             *metav1.LabelSelector `json:"selector,omitempty"`
	WorkloadTemplate     map[string]any        `json:"workloadTemplate,omitempty"`
	Topology             Topology              `json:"topology,omitempty"`
	RevisionHistoryLimit *int64                `json:"revisionHistoryLimit,omitempty"`
}

// Topology is the list of pools.
type Topology struct {
	Pools []Pool `json:"pools,omitempty"`
}

// Pool is one pool and how its workload differs from the template.
type Pool struct {
	Name             string                   `json:"name"`
	NodeSelectorTerm *corev1.NodeSelectorTerm `json:"nodeSelectorTerm,omitempty"`
	Tolerations      []map[string]any         `json:"tolerations,omitempty"`
	Replicas         *int64                   `json:"replicas,omitempty"`
	Patch            map[string]any           `json:"patch,omitempty"`
}

// DaemonSpec is the spec of a YurtAppDaemon: one workload for each pool that the selector chooses.
type DaemonSpec struct {
	Selector             *metav1.LabelSelector `json:"selector,omitempty"`
	WorkloadTemplate     map[string]any        `json:"workloadTemplate,omitempty"`
	NodePoolSelector     *metav1.LabelSelector `json:"nodepoolSelector,omitempty"`
	RevisionHistoryLimit *int64                `json:"revisionHistoryLimit,omitempty"`
}
