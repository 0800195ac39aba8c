// Package fleet shows and sets the devices of a whole cluster through its API, in the form in which a node shows its own. Rooms of twin
// import it.
package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/local"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// Client asks the API.
type Client struct{ API dynamic.Interface }

// List returns all devices, sorted by namespace and name.
func (c Client) List(ctx context.Context) ([]local.Device, error) {
	devices, err := list[v1beta1.Device](ctx, c.API.Resource(v1beta1.Devices()))
	if err != nil {
		return nil, err
	}
	models, err := list[v1beta1.DeviceModel](ctx, c.API.Resource(v1beta1.Models()))
	if err != nil {
		return nil, err
	}
	statuses, err := list[v1beta1.DeviceStatus](ctx, c.API.Resource(v1beta1.Statuses()))
	if err != nil {
		return nil, err
	}
	byKey, statusOf := map[string]*v1beta1.DeviceModel{}, map[string]*v1beta1.DeviceStatus{}
	for _, m := range models {
		byKey[hub.Key(m.Namespace, m.Name)] = m
	}
	for _, s := range statuses {
		statusOf[hub.Key(s.Namespace, s.Name)] = s
	}
	var out []local.Device
	for _, d := range devices {
		var m *v1beta1.DeviceModel
		if r := d.Spec.DeviceModelRef; r != nil {
			m = byKey[hub.Key(d.Namespace, r.Name)]
		}
		out = append(out, describe(d, m, statusOf[hub.Key(d.Namespace, d.Name)]))
	}
	slices.SortFunc(out, func(a, b local.Device) int {
		if a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name {
			return -1
		}
		return 1
	})
	return out, nil
}

func list[T v1beta1.Device | v1beta1.DeviceModel | v1beta1.DeviceStatus](ctx context.Context, r dynamic.ResourceInterface) ([]*T, error) {
	var out []*T
	for options := (metav1.ListOptions{Limit: 500}); ; {
		page, err := r.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("ask the API for devices: %w", err)
		}
		for i := range page.Items {
			obj, err := v1beta1.Decode[T](&page.Items[i])
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", page.Items[i].GetName(), err)
			}
			out = append(out, obj)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}

// describe puts the three objects of a device together as its node does.
func describe(d *v1beta1.Device, m *v1beta1.DeviceModel, s *v1beta1.DeviceStatus) local.Device {
	v := hub.View{Device: model.Effective(d, m), Model: m, State: merge.State{Twins: map[string]merge.Twin{}}}
	for _, p := range d.Spec.Properties {
		if p.Desired != nil && p.Desired.Value != "" {
			v.State.Twins[p.Name] = merge.Twin{Desired: p.Desired}
		}
	}
	if s != nil {
		v.State.State = s.Status.State
		v.State.LastOnline, _ = time.Parse(time.RFC3339, s.Status.LastOnlineTime)
		for _, t := range s.Status.Twins {
			twin := v.State.Twins[t.PropertyName]
			twin.Reported, twin.Observed = t.Reported, t.ObservedDesired
			v.State.Twins[t.PropertyName] = twin
		}
	}
	return local.Describe(d.Spec.NodeName, v)
}

// Get returns one device, or local.ErrNoDevice.
func (c Client) Get(ctx context.Context, namespace, name string) (local.Device, error) {
	d, err := one[v1beta1.Device](ctx, c.API.Resource(v1beta1.Devices()).Namespace(namespace), name)
	if err != nil {
		return local.Device{}, err
	}
	if d == nil {
		return local.Device{}, fmt.Errorf("device %s/%s: there is none in the cluster: %w", namespace, name, local.ErrNoDevice)
	}
	var m *v1beta1.DeviceModel
	if r := d.Spec.DeviceModelRef; r != nil {
		if m, err = one[v1beta1.DeviceModel](ctx, c.API.Resource(v1beta1.Models()).Namespace(namespace), r.Name); err != nil {
			return local.Device{}, err
		}
	}
	s, err := one[v1beta1.DeviceStatus](ctx, c.API.Resource(v1beta1.Statuses()).Namespace(namespace), name)
	if err != nil {
		return local.Device{}, err
	}
	return describe(d, m, s), nil
}

// one returns an object, or nil when there is none.
func one[T v1beta1.Device | v1beta1.DeviceModel | v1beta1.DeviceStatus](ctx context.Context, r dynamic.ResourceInterface, name string) (*T, error) {
	u, err := r.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the API for %s: %w", name, err)
	}
	return v1beta1.Decode[T](u)
}

// Set makes a value the desired one. The API server refuses what the model does not allow.
func (c Client) Set(ctx context.Context, namespace, name, property, value string) error {
	resource := c.API.Resource(v1beta1.Devices()).Namespace(namespace)
	live, err := resource.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	d, err := v1beta1.Decode[v1beta1.Device](live)
	if err != nil {
		return err
	}
	desired := v1beta1.Value{Value: value, Metadata: hub.Stamp(time.Now())}
	op := map[string]any{"op": "add", "path": "/spec/properties/-", "value": v1beta1.Property{Name: property, Desired: &desired}}
	if len(d.Spec.Properties) == 0 {
		op = map[string]any{"op": "add", "path": "/spec/properties", "value": []v1beta1.Property{{Name: property, Desired: &desired}}}
	}
	for i, p := range d.Spec.Properties {
		if p.Name == property {
			op = map[string]any{"op": "add", "path": fmt.Sprintf("/spec/properties/%d/desired", i), "value": desired}
		}
	}
	patch, err := json.Marshal([]any{map[string]any{"op": "test", "path": "/metadata/resourceVersion", "value": live.GetResourceVersion()}, op})
	if err != nil {
		return err
	}
	_, err = resource.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "kedge-device"})
	return err
}

// Watch calls do for each device, or the one that is given as namespace/name, and again whenever what it reports changes, until ctx is done or
// do fails.
func (c Client) Watch(ctx context.Context, only string, do func(local.Device) error) error {
	resource := c.API.Resource(v1beta1.Statuses())
	page, err := resource.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("ask the API for devices: %w", err)
	}
	show := func(u *unstructured.Unstructured) error {
		if only != "" && only != hub.Key(u.GetNamespace(), u.GetName()) {
			return nil
		}
		d, err := c.Get(ctx, u.GetNamespace(), u.GetName())
		if err != nil {
			return nil // it went away meanwhile
		}
		return do(d)
	}
	for i := range page.Items {
		if err := show(&page.Items[i]); err != nil {
			return err
		}
	}
	w, err := resource.Watch(ctx, metav1.ListOptions{ResourceVersion: page.GetResourceVersion()})
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if u, ok := event.Object.(*unstructured.Unstructured); ok {
			if err := show(u); err != nil {
				return err
			}
		}
	}
	return nil
}
