// Package v1beta1 is the YurtAppSet of apps.openyurt.io/v1beta1.
// Data only; anyone may import it.
package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Names of the API.
const (
	Group          = "apps.openyurt.io"
	Version        = "v1beta1"
	KindYurtAppSet = "YurtAppSet"

	// LabelPoolName names, on a generated workload and its pods, the pool.
	LabelPoolName = "apps.openyurt.io/pool-name"
	// LabelSet names, on a generated workload and its pods, the set.
	LabelSet = "apps.openyurt.io/ref-yurtappset"
	// LabelRevision is, on a generated workload, the hash of what it is made of.
	LabelRevision = "apps.openyurt.io/controller-revision-hash"
	// AnnotationPool names, on a generated workload, the pool.
	AnnotationPool = "apps.openyurt.io/ref-nodepool"
)

// YurtAppSetSpec is one workload for each of several pools.
type YurtAppSetSpec struct {
	Pools            []string              `json:"pools,omitempty"`
	NodePoolSelector *metav1.LabelSelector `json:"nodepoolSelector,omitempty"`
	Workload         Workload              `json:"workload"`
}

// Workload is the template and how pools differ from it.
type Workload struct {
	WorkloadTemplate WorkloadTemplate `json:"workloadTemplate"`
	WorkloadTweaks   []WorkloadTweak  `json:"workloadTweaks,omitempty"`
}

// WorkloadTemplate is one of the two.
type WorkloadTemplate struct {
	DeploymentTemplate  *Template `json:"deploymentTemplate,omitempty"`
	StatefulSetTemplate *Template `json:"statefulSetTemplate,omitempty"`
}

// Template is the metadata and spec of a Deployment or StatefulSet.
type Template struct {
	Metadata map[string]any `json:"metadata,omitempty"`
	Spec     map[string]any `json:"spec,omitempty"`
}

// WorkloadTweak changes the workload of some pools; of several the last wins.
type WorkloadTweak struct {
	Pools            []string              `json:"pools,omitempty"`
	NodePoolSelector *metav1.LabelSelector `json:"nodepoolSelector,omitempty"`
	Tweaks           Tweaks                `json:"tweaks"`
}

// Tweaks are the changes.
type Tweaks struct {
	Replicas        *int64           `json:"replicas,omitempty"`
	ContainerImages []ContainerImage `json:"containerImages,omitempty"`
	Patches         []Patch          `json:"patches,omitempty"`
}

// ContainerImage replaces the image of a container by the container's name.
type ContainerImage struct {
	Name        string `json:"name"`
	TargetImage string `json:"targetImage"`
}

// Patch is one step of a JSON patch (RFC 6902) on the workload.
type Patch struct {
	Path      string `json:"path"`
	Operation string `json:"operation"`
	Value     any    `json:"value,omitempty"`
}
