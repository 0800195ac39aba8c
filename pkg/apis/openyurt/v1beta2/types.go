// Package v1beta2 is the NodePool of apps.openyurt.io/v1beta2.
// Data only; anyone may import it.
package v1beta2

import corev1 "k8s.io/api/core/v1"

// Names of the API.
const (
	Group        = "apps.openyurt.io"
	Version      = "v1beta2"
	KindNodePool = "NodePool"

	// LabelPool of a node names its pool.
	LabelPool = "apps.openyurt.io/nodepool"
	// AnnotationTopology of a Service names the node labels whose value consumers and endpoints must share.
	AnnotationTopology = "openyurt.io/topologyKeys"
	// TopologyPool and TopologyZone in that annotation stand for LabelPool and topology.kubernetes.io/zone.
	TopologyPool = "openyurt.io/nodepool"
	TopologyZone = "kubernetes.io/zone"
)

// NodePoolSpec is what the nodes of a pool get; membership is LabelPool.
type NodePoolSpec struct {
	Type        string            `json:"type,omitempty"`
	HostNetwork bool              `json:"hostNetwork,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Taints      []corev1.Taint    `json:"taints,omitempty"`
}
