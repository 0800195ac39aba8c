// Package v1alpha1 is the AddOn kind: the record that kedge keeps of one file in the manifests folder.
// Data only; anyone may import it.
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API.
const (
	Group    = "addons.kedge.io"
	Version  = "v1alpha1"
	Kind     = "AddOn"
	Resource = "addons"

	// ConditionReady is true when everything in the file was applied as it stands.
	ConditionReady = "Ready"

	// AnnotationAddOn names, on an applied object, the AddOn that applied it last.
	AnnotationAddOn = Group + "/addon"
	// AnnotationKeep set to "true" on an object keeps it when its file drops it or goes away.
	AnnotationKeep = Group + "/keep"
)

// Reasons of the Ready condition.
const (
	ReasonApplied = "Applied" // True
	ReasonInvalid = "Invalid" // False: the file is broken or was refused whole; nothing was changed
	ReasonFailed  = "Failed"  // False: some objects were refused; it is tried again
	ReasonWaiting = "Waiting" // False: a kind or namespace does not exist yet; it is tried again
	ReasonSkipped = "Skipped" // Unknown: a .skip file keeps hands off
	ReasonPruning = "Pruning" // False: objects of a file that is gone could not be removed yet; it is tried again
)

// GroupVersion is the API group and version of this package.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// GroupVersionResource is what a dynamic client needs to reach AddOns.
func GroupVersionResource() schema.GroupVersionResource {
	return GroupVersion().WithResource(Resource)
}

// AddOn is the record of one manifest file. kedge writes it whole; there is no status subresource, so that what was
// applied and what is wanted are one atomic write.
type AddOn struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AddOnSpec   `json:"spec"`
	Status AddOnStatus `json:"status,omitempty"`
}

// AddOnSpec says where the record comes from.
type AddOnSpec struct {
	// Source is the path of the file below the manifests folder.
	Source string `json:"source"`
	// Server is the node name of the server whose folder holds the file; only that server removes its objects.
	Server string `json:"server,omitempty"`
	// Packaged is true for files that come with kedge.
	Packaged bool `json:"packaged,omitempty"`
}

// AddOnStatus says what was done.
type AddOnStatus struct {
	// Checksum is the SHA-256 of the file as last applied in full, in hex.
	Checksum string `json:"checksum,omitempty"`
	// Kinds are the kinds in Objects, as group/version/kind, sorted.
	Kinds []string `json:"kinds,omitempty"`
	// Objects are what the file may have left in the cluster; it is written before they are applied.
	Objects []ObjectRef `json:"objects,omitempty"`
	// Conditions holds Ready.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ObjectRef names one object.
type ObjectRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}
