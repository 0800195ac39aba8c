package twin

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/twin/convert"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// lookTimeout bounds how long a write of a device waits for its model.
const lookTimeout = 5 * time.Second

// Kinds are the kinds of devices, for an API server to convert and check. kubeconfig is of a user who may read them; it is used when the
// first device is written.
func Kinds(kubeconfig string) []conversion.Kind {
	j := judge{client: sync.OnceValues(func() (dynamic.Interface, error) {
		rest, err := kube.Config(kubeconfig, "devices")
		if err != nil {
			return nil, err
		}
		return dynamic.NewForConfig(rest)
	})}
	versions := []string{convert.Alpha, convert.Beta}
	return []conversion.Kind{
		{Group: v1beta1.Group, Kind: "DeviceModel", Versions: versions, Convert: convert.Model, Check: j.model},
		{Group: v1beta1.Group, Kind: "Device", Versions: versions, Convert: convert.Device, Check: j.device},
		{Group: v1beta1.Group, Kind: "DeviceStatus", Versions: []string{convert.Beta}, Check: j.status},
	}
}

// judge says what is wrong with objects that somebody writes.
type judge struct {
	client func() (dynamic.Interface, error)
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
		return broken(err)
	}
	m, err := v1beta1.Decode[v1beta1.DeviceModel](obj)
	if err != nil {
		return broken(err)
	}
	v.Errors = listOf(model.CheckModel(m))
	return v
}

func (j judge) device(obj, _ *unstructured.Unstructured) (v conversion.Verdict) {
	obj, err := newest(obj, convert.Device)
	if err != nil {
		return broken(err)
	}
	d, err := v1beta1.Decode[v1beta1.Device](obj)
	if err != nil {
		return broken(err)
	}
	var m *v1beta1.DeviceModel
	if r := d.Spec.DeviceModelRef; r != nil && r.Name != "" {
		live, err := j.look(v1beta1.Models(), d.Namespace, r.Name)
		if err != nil {
			return broken(fmt.Errorf("look at its model: %w", err))
		}
		if live != nil {
			if m, err = v1beta1.Decode[v1beta1.DeviceModel](live); err != nil {
				return broken(err)
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
	device, err := j.look(v1beta1.Devices(), obj.GetNamespace(), obj.GetName())
	if err != nil {
		return broken(fmt.Errorf("look at its device: %w", err))
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

// look returns an object, or nil when there is none.
func (j judge) look(kind schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	client, err := j.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	live, err := client.Resource(kind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return live, err
}

func broken(err error) conversion.Verdict {
	return conversion.Verdict{Errors: field.ErrorList{field.Invalid(field.NewPath("spec"), "", err.Error())}}
}

func listOf(problems []model.Problem) (out field.ErrorList) {
	for _, p := range problems {
		out = append(out, &field.Error{Type: field.ErrorTypeForbidden, Field: p.Field, Detail: p.Reason})
	}
	return out
}
