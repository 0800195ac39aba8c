// Package v1alpha2 is the units and groups of nodes of site.superedge.io/v1alpha2.
// Data only; anyone may import it.
package v1alpha2

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names of the API.
const (
	Group      = "site.superedge.io"
	Version    = "v1alpha2"
	OldVersion = "v1alpha1"

	KindNodeUnit  = "NodeUnit"
	KindNodeGroup = "NodeGroup"

	// UnitMark is the value of the label on a node that is named as a unit of the node.
	UnitMark = "nodeunits.superedge.io"
	// GroupMark is the value of the label on a NodeUnit that is named as a group of the unit.
	GroupMark = "nodegroups.superedge.io"
	// LabelAutoKeys is on NodeUnits that a NodeGroup found by itself: a hash of the labels that make them.
	LabelAutoKeys = "site.superedge.io/node-group-auto-keys-hash"
)

// Selector chooses nodes, or units, by labels and annotations; all of it must match. Without any condition it chooses nothing.
type Selector struct {
	MatchLabels      map[string]string                 `json:"matchLabels,omitempty"`
	MatchExpressions []metav1.LabelSelectorRequirement `json:"matchExpressions,omitempty"`
	Annotations      map[string]string                 `json:"annotations,omitempty"`
}

// SetNode is what a unit puts on its nodes.
type SetNode struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Taints      []corev1.Taint    `json:"taints,omitempty"`
}

// NodeUnitSpec says which nodes belong to a unit, and what they get.
type NodeUnitSpec struct {
	Type          string    `json:"type,omitempty"`
	Unschedulable bool      `json:"unschedulable,omitempty"`
	Nodes         []string  `json:"nodes,omitempty"`
	Selector      *Selector `json:"selector,omitempty"`
	SetNode       SetNode   `json:"setNode,omitempty"`
	AutonomyLevel string    `json:"autonomyLevel,omitempty"`
}

// NodeGroupSpec says which units belong to a group.
type NodeGroupSpec struct {
	NodeUnits        []string   `json:"nodeUnits,omitempty"`
	Selector         *Selector  `json:"selector,omitempty"`
	AutoFindNodeKeys []string   `json:"autoFindNodeKeys,omitempty"`
	Workload         []Workload `json:"workload,omitempty"`
}

// Workload is a grid whose state a group shows.
type Workload struct {
	Name     string    `json:"name,omitempty"`
	Type     string    `json:"type,omitempty"`
	Selector *Selector `json:"selector,omitempty"`
}
