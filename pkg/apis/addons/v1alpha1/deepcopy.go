package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopy returns a copy that shares nothing with a.
func (a *AddOn) DeepCopy() *AddOn {
	if a == nil {
		return nil
	}
	out := &AddOn{TypeMeta: a.TypeMeta, Spec: a.Spec, Status: a.Status}
	a.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Kinds = slices.Clone(a.Status.Kinds)
	out.Status.Objects = slices.Clone(a.Status.Objects)
	out.Status.Conditions = slices.Clone(a.Status.Conditions)
	for i := range out.Status.Conditions {
		a.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
	}
	return out
}

// DeepCopyObject implements runtime.Object.
func (a *AddOn) DeepCopyObject() runtime.Object {
	if a == nil {
		return nil
	}
	return a.DeepCopy()
}
