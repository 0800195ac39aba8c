package twin

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/twin/convert"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// Kinds are the kinds of devices, for an API server to convert and check. kubeconfig is of a user who may read them; it is used when the
// first device is written.
func Kinds(kubeconfig string) []conversion.Kind {
	j := judge{kube.NewLookup(kubeconfig, "devices")}
	versions := []string{convert.Alpha, convert.Beta}
	return []conversion.Kind{
		{Group: v1beta1.Group, Kind: "DeviceModel", Versions: versions, Convert: convert.Model, Check: j.model},
		{Group: v1beta1.Group, Kind: "Device", Versions: versions, Convert: convert.Device, Check: j.device},
		{Group: v1beta1.Group, Kind: "DeviceStatus", Versions: []string{convert.Beta}, Check: j.status},
	}
}

// judge says what is wrong with objects that somebody writes.
type judge struct {
	api kube.Lookup
}

// newest is the object in the version that is checked.
func newest(obj *unstructured.Unstructured, way func(map[string]any, string, string) error) (*unstructured.Unstructured, error) {
	if obj.GroupVersionKind().Version == convert.Beta {
		return obj, nil
	}
	obj = obj.DeepCopy()
	if err := way(obj.Object, obj.GroupVersionKind().Version, convert.Beta); err != nil {
		return nil, err
	}
	obj.SetAPIVersion(v1beta1.Group + "/" + convert.Beta)
	return obj, nil
}

func (j judge) model(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	obj, err := newest(obj, convert.Model)
	if err != nil {
		return conversion.Refuse(err)
	}
	m, err := v1beta1.Decode[v1beta1.DeviceModel](obj)
	if err != nil {
		return conversion.Refuse(err)
	}
	v.Errors = listOf(model.CheckModel(m))
	return v
}

func (j judge) device(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	obj, err := newest(obj, convert.Device)
	if err != nil {
		return conversion.Refuse(err)
	}
	d, err := v1beta1.Decode[v1beta1.Device](obj)
	if err != nil {
		return conversion.Refuse(err)
	}
	var m *v1beta1.DeviceModel
	if r := d.Spec.DeviceModelRef; r != nil && r.Name != "" {
		live, err := j.api.Get(v1beta1.Models(), d.Namespace, r.Name)
		if err != nil {
			return conversion.Refuse(fmt.Errorf("look at its model: %w", err))
		}
		if live != nil {
			if m, err = v1beta1.Decode[v1beta1.DeviceModel](live); err != nil {
				return conversion.Refuse(err)
			}
		}
	}
	v.Errors, v.Warnings = listOf(model.CheckDevice(d, m)), model.Warnings(d)
	return v
}

// status lets a status name only the node on which its device is; that the node says its own name is up to a policy.
func (j judge) status(obj, old *unstructured.Unstructured) (v conversion.Verdict) {
	node := obj.GetAnnotations()[v1beta1.AnnotationNode]
	if node == "" || old != nil && old.GetAnnotations()[v1beta1.AnnotationNode] == node {
		return v
	}
	device, err := j.api.Get(v1beta1.Devices(), obj.GetNamespace(), obj.GetName())
	if err != nil {
		return conversion.Refuse(fmt.Errorf("look at its device: %w", err))
	}
	on := ""
	if device != nil {
		on, _, _ = unstructured.NestedString(device.Object, "spec", "nodeName")
	}
	if on != node {
		v.Errors = field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations").Key(v1beta1.AnnotationNode),
			fmt.Sprintf("the device of this name hangs on node %q", on))}
	}
	return v
}

func listOf(problems []model.Problem) (out field.ErrorList) {
	for _, p := range problems {
		out = append(out, &field.Error{Type: field.ErrorTypeForbidden, Field: p.Field, Detail: p.Reason})
	}
	return out
}
