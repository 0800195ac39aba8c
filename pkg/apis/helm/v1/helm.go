// Package v1 is the group helm.cattle.io: HelmChart and HelmChartConfig, as users of the family know them.
// Data only; anyone may import it.
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names of the API.
const (
	Group   = "helm.cattle.io"
	Version = "v1"

	// ConditionReady is true when the release is as the HelmChart wants it.
	ConditionReady = "Ready"
	// ConditionFailed is true when the last attempt failed.
	ConditionFailed = "Failed"

	// FailurePolicyReinstall and FailurePolicyAbort are the values of failurePolicy.
	FailurePolicyReinstall = "reinstall"
	FailurePolicyAbort     = "abort"
)

// Charts and Configs are what a dynamic client needs to reach the two kinds.
func Charts() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: "helmcharts"}
}

// Configs is the resource of HelmChartConfig.
func Configs() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: "helmchartconfigs"}
}

// HelmChart is a chart and its release: the release has the name of the HelmChart.
type HelmChart struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   HelmChartSpec   `json:"spec"`
	Status HelmChartStatus `json:"status,omitempty"`
}

// HelmChartSpec is what is wanted. Secrets and ConfigMaps are in the namespace of the HelmChart.
type HelmChartSpec struct {
	// Chart is a name in Repo, or an oci:// or https:// address; ChartContent is the archive itself, in base64, and wins.
	Chart        string `json:"chart,omitempty"`
	ChartContent string `json:"chartContent,omitempty"`
	Repo         string `json:"repo,omitempty"`
	// Version is a version or a range of versions; empty for the newest.
	Version string `json:"version,omitempty"`
	// TargetNamespace is where the release goes; empty for the HelmChart's own.
	TargetNamespace string `json:"targetNamespace,omitempty"`
	CreateNamespace bool   `json:"createNamespace,omitempty"`

	// Values in the order in which later ones win; HelmChartConfig's come before Set.
	Values        map[string]any                `json:"values,omitempty"`
	ValuesContent string                        `json:"valuesContent,omitempty"`
	ValuesSecrets []SecretValues                `json:"valuesSecrets,omitempty"`
	Set           map[string]intstr.IntOrString `json:"set,omitempty"`

	// RepoCA is PEM text, RepoCAConfigMap a ConfigMap whose values are.
	RepoCA                string     `json:"repoCA,omitempty"`
	RepoCAConfigMap       *Reference `json:"repoCAConfigMap,omitempty"`
	InsecureSkipTLSVerify bool       `json:"insecureSkipTLSVerify,omitempty"`
	PlainHTTP             bool       `json:"plainHTTP,omitempty"`
	// AuthSecret has username and password; AuthPassCredentials sends them to other hosts too.
	AuthSecret           *Reference `json:"authSecret,omitempty"`
	AuthPassCredentials  bool       `json:"authPassCredentials,omitempty"`
	PassCredentials      bool       `json:"passCredentials,omitempty"` // another name of AuthPassCredentials
	DockerRegistrySecret *Reference `json:"dockerRegistrySecret,omitempty"`

	// FailurePolicy is reinstall (and roll back), or abort.
	FailurePolicy string           `json:"failurePolicy,omitempty"`
	Timeout       *metav1.Duration `json:"timeout,omitempty"`
	// BackOffLimit is how often a failed attempt is repeated; 1000 if not set.
	BackOffLimit  *int32 `json:"backOffLimit,omitempty"`
	TakeOwnership bool   `json:"takeOwnership,omitempty"`

	// Bootstrap is always fulfilled: nothing that an install needs waits for the network of pods.
	Bootstrap bool `json:"bootstrap,omitempty"`
	// JobImage and HelmVersion are accepted; no job runs.
	JobImage    string `json:"jobImage,omitempty"`
	HelmVersion string `json:"helmVersion,omitempty"`
}

// Reference names an object in the namespace of the HelmChart.
type Reference struct {
	Name string `json:"name"`
}

// SecretValues names keys of a Secret that hold values as YAML; all keys when none is given.
type SecretValues struct {
	Name string   `json:"name"`
	Keys []string `json:"keys,omitempty"`
	// IgnoreUpdates keeps a change of the Secret alone from changing the release.
	IgnoreUpdates bool `json:"ignoreUpdates,omitempty"`
}

// HelmChartStatus is what was done.
type HelmChartStatus struct {
	// JobName stays empty: no job runs.
	JobName string `json:"jobName,omitempty"`
	// Digest is of everything that went into the last attempt.
	Digest string `json:"digest"`
	// Attempts counts failures in a row with this digest.
	Attempts int32 `json:"attempts"`
	// Namespace, Revision and ChartVersion are those of the release.
	Namespace    string             `json:"namespace,omitempty"`
	Revision     int                `json:"revision,omitempty"`
	ChartVersion string             `json:"chartVersion,omitempty"`
	Conditions   []metav1.Condition `json:"conditions,omitempty"`
}

// HelmChartConfig changes the values of the HelmChart with the same namespace and name.
type HelmChartConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec HelmChartConfigSpec `json:"spec"`
}

// HelmChartConfigSpec is laid over the HelmChart's.
type HelmChartConfigSpec struct {
	Values        map[string]any `json:"values,omitempty"`
	ValuesContent string         `json:"valuesContent,omitempty"`
	ValuesSecrets []SecretValues `json:"valuesSecrets,omitempty"`
	FailurePolicy string         `json:"failurePolicy,omitempty"`
}
