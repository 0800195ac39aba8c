package cache

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// Selector is a label selector and a field selector, evaluated here.
type Selector struct {
	Labels labels.Selector
	Fields fields.Selector
	// Namespace is empty for all.
	Namespace string
}

// NewSelector parses the selectors of a request; empty ones select everything.
func NewSelector(namespace, labelSelector, fieldSelector string) (Selector, error) {
	s := Selector{Namespace: namespace}
	var err error
	if s.Labels, err = labels.Parse(labelSelector); err != nil {
		return s, fmt.Errorf("labelSelector: %w", err)
	}
	if s.Fields, err = fields.ParseSelector(fieldSelector); err != nil {
		return s, fmt.Errorf("fieldSelector: %w", err)
	}
	return s, nil
}

// Supported says whether all fields can be evaluated here for objects of any kind, or of pods.
func (s Selector) Supported(pods bool) bool {
	for _, r := range s.Fields.Requirements() {
		switch r.Field {
		case "metadata.name", "metadata.namespace":
		case "spec.nodeName", "status.phase":
			if !pods {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// SupportedForServices says the same of Services.
func (s Selector) SupportedForServices() bool {
	return !slices.ContainsFunc(s.Fields.Requirements(), func(r fields.Requirement) bool {
		return r.Field != "metadata.name" && r.Field != "metadata.namespace" && r.Field != "spec.clusterIP" && r.Field != "spec.type"
	})
}

// Matches says whether an object is selected.
func (s Selector) Matches(o *object.Object) bool {
	if s.Namespace != "" && s.Namespace != o.Namespace {
		return false
	}
	if s.Fields != nil && !s.Fields.Empty() && !s.Fields.Matches(fieldsOf(o)) {
		return false
	}
	if s.Labels == nil || s.Labels.Empty() {
		return true
	}
	m, err := o.Meta()
	return err == nil && s.Labels.Matches(labels.Set(m.Labels))
}

func fieldsOf(o *object.Object) fields.Set {
	set := fields.Set{"metadata.name": o.Name, "metadata.namespace": o.Namespace}
	if o.Kind.Group != "" || o.Kind.Kind != "Pod" && o.Kind.Kind != "Service" {
		return set
	}
	decoded, err := o.Decode()
	if err != nil {
		return set
	}
	switch d := decoded.(type) {
	case *corev1.Pod:
		set["spec.nodeName"], set["status.phase"] = d.Spec.NodeName, string(d.Status.Phase)
	case *corev1.Service:
		set["spec.clusterIP"], set["spec.type"] = d.Spec.ClusterIP, string(d.Spec.Type)
	}
	return set
}
