// Package conversion lets features say, for kinds of custom resources, how one version becomes another and what a good object
// is beyond its schema. The API server asks in its own process: there is no webhook to reach, no certificate and no port.
// It is a foundation: controlplane calls it, and features that own custom resources import it to declare their kinds.
//
// A feature returns its kinds, and its CustomResourceDefinition with several versions says
//
//	conversion:
//	  strategy: Webhook
//	  webhook:
//	    conversionReviewVersions: [v1]
//	    clientConfig: {url: "https://conversion.kedge.internal/"}
//
// Nothing listens at that address: requests to it end in the Registry of the same process. Kinds with one version need no
// conversion section and may still have a Check.
package conversion

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kind is what a feature knows about one kind of custom resource.
type Kind struct {
	// Group and Kind name it, for example "site.superedge.io" and "NodeUnit".
	Group, Kind string
	// Versions are those that are served; Convert knows the way between each two of them.
	Versions []string
	// Convert changes content, an object of version from, into version to. apiVersion is set by the caller; of metadata only
	// labels and annotations may change. It is nil for a kind with one version.
	Convert func(content map[string]any, from, to string) error
	// Check says what is wrong with an object that somebody writes, in the version in which it was sent; old is nil when it is
	// new. Both are read only. It is nil for a kind whose schema says everything.
	Check func(obj, old *unstructured.Unstructured) Verdict
}

// Verdict is what a Check found.
type Verdict struct {
	// Warnings are shown to the user, the object is taken.
	Warnings []string
	// Errors refuse the object; each names its field.
	Errors field.ErrorList
}

// Refuse is the verdict on an object that cannot be judged, or not be understood.
func Refuse(err error) Verdict {
	return Verdict{Errors: field.ErrorList{field.Invalid(field.NewPath("spec"), "", err.Error())}}
}

// Registry is the set of all kinds. It does not change once made.
type Registry struct {
	kinds map[schema.GroupKind]Kind
}

// NewRegistry collects the kinds of several features. It fails when a kind is there twice, or has versions and no way between them.
func NewRegistry(features ...[]Kind) (*Registry, error) {
	r := &Registry{kinds: map[schema.GroupKind]Kind{}}
	for _, k := range slices.Concat(features...) {
		gk := schema.GroupKind{Group: k.Group, Kind: k.Kind}
		if _, twice := r.kinds[gk]; twice {
			return nil, fmt.Errorf("kind %s is declared twice", gk)
		}
		if len(k.Versions) > 1 && k.Convert == nil {
			return nil, fmt.Errorf("kind %s has several versions and no conversion", gk)
		}
		r.kinds[gk] = k
	}
	return r, nil
}

// Convert returns a copy of obj in the version of apiVersion, which must be of the same group.
func (r *Registry) Convert(obj *unstructured.Unstructured, apiVersion string) (*unstructured.Unstructured, error) {
	from, gk := obj.GroupVersionKind().GroupVersion(), obj.GroupVersionKind().GroupKind()
	to, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, err
	}
	k, known := r.kinds[gk]
	switch {
	case !known:
		return nil, fmt.Errorf("kedge does not know kind %s: it converts its own kinds only", gk)
	case to.Group != from.Group || !slices.Contains(k.Versions, from.Version) || !slices.Contains(k.Versions, to.Version):
		return nil, fmt.Errorf("kind %s cannot be converted from %s to %s: its versions are %v", gk, from, to, k.Versions)
	}
	out := obj.DeepCopy()
	if from != to {
		if err := k.Convert(out.Object, from.Version, to.Version); err != nil {
			return nil, fmt.Errorf("convert %s %s from %s to %s: %w", k.Kind, obj.GetName(), from.Version, to.Version, err)
		}
	}
	out.SetAPIVersion(apiVersion)
	return out, nil
}

// Check asks the owner of the kind; a kind without one has nothing wrong with it. old is nil when obj is new.
func (r *Registry) Check(obj, old *unstructured.Unstructured) Verdict {
	k, known := r.kinds[obj.GroupVersionKind().GroupKind()]
	if !known || k.Check == nil {
		return Verdict{}
	}
	return k.Check(obj, old)
}

// Knows says whether somebody declared the kind.
func (r *Registry) Knows(gk schema.GroupKind) bool {
	_, known := r.kinds[gk]
	return known
}
