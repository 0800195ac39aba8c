package hub

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
	"github.com/kedge-io/kedge/pkg/twin/store"
)

// PutModel takes over a model of the API. It is on disk when it returns.
func (h *Hub) PutModel(m *v1beta1.DeviceModel) error {
	m = &v1beta1.DeviceModel{ObjectMeta: metaOf(m.Namespace, m.Name, string(m.UID)), Spec: m.Spec}
	key := Key(m.Namespace, m.Name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.models[key]; old != nil && reflect.DeepEqual(old.Spec, m.Spec) {
		return nil
	}
	if err := h.write(store.Models, key, m); err != nil {
		return err
	}
	h.models[key] = m
	h.changedModel(key)
	return h.review(key)
}

// review looks again at what the API wants of the devices of a model. It wants the lock.
func (h *Hub) review(modelKey string) error {
	var changes []store.Change
	for key, e := range h.devices {
		if r := e.device.Spec.DeviceModelRef; r == nil || Key(e.device.Namespace, r.Name) != modelKey {
			continue
		}
		properties, _ := h.allowed(e, e.device)
		state, desired := merge.Spec(e.state, properties)
		if len(desired) == 0 {
			continue
		}
		e.state = state
		changes = append(changes, stateChange(key, state))
		h.changed(key, Desired)
	}
	return h.store.Write(changes...)
}

// RemoveModel forgets a model.
func (h *Hub) RemoveModel(key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.models[key] == nil {
		return nil
	}
	if err := h.store.Write(store.Change{Bucket: store.Models, Key: key}); err != nil {
		return err
	}
	h.changedModel(key)
	delete(h.models, key)
	return nil
}

// Models returns the keys of all models.
func (h *Hub) Models() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for key := range h.models {
		out = append(out, key)
	}
	return out
}

// changedModel wants the lock.
func (h *Hub) changedModel(key string) {
	for k, e := range h.devices {
		if r := e.device.Spec.DeviceModelRef; r != nil && Key(e.device.Namespace, r.Name) == key {
			h.changed(k, Specification)
		}
	}
}

// PutDevice takes over a device of the API. What it wants is on disk when it returns. A desired value that the model does not allow is
// left out and returned as an error; the rest counts.
func (h *Hub) PutDevice(d *v1beta1.Device) error {
	d = &v1beta1.Device{ObjectMeta: metaOf(d.Namespace, d.Name, string(d.UID)), Spec: d.Spec}
	key := Key(d.Namespace, d.Name)
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil || e.device.UID != d.UID {
		e = &entry{device: &v1beta1.Device{}}
	}
	properties, refused := h.allowed(e, d)
	state, desired := merge.Spec(e.state, properties)
	same := reflect.DeepEqual(e.device.Spec, d.Spec)
	if same && len(desired) == 0 && h.devices[key] == e {
		return refused
	}
	spec, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("keep device %s: %w", key, err)
	}
	if err := h.store.Write(store.Change{Bucket: store.Devices, Key: key, Value: spec}, stateChange(key, state)); err != nil {
		return err
	}
	next := &entry{device: d, state: state, refreshed: e.refreshed}
	kind := Kind(0)
	if !sameButDesired(e.device, d) || h.devices[key] != e {
		kind |= Specification
	}
	if len(desired) > 0 {
		kind |= Desired
	}
	h.devices[key] = next
	h.changed(key, kind)
	return refused
}

// allowed returns the properties; where a desired value may not reach the driver, or nobody knows yet because there is no model, the one
// of before stands.
func (h *Hub) allowed(e *entry, d *v1beta1.Device) (out []v1beta1.Property, refused error) {
	m := h.modelOf(d)
	for _, p := range d.Spec.Properties {
		if p.Desired != nil {
			mp, ok := model.Property(m, p.Name)
			err := ErrUnknownProperty
			if ok {
				err = model.Desired(mp, p.Desired.Value)
			}
			if err != nil {
				p.Desired = e.state.Twins[p.Name].Cluster
			}
			if err != nil && m != nil {
				refused = fmt.Errorf("%w: desired value of %s: %w", ErrRefused, p.Name, err)
			}
		}
		out = append(out, p)
	}
	return out, refused
}

func sameButDesired(a, b *v1beta1.Device) bool {
	bare := func(d *v1beta1.Device) v1beta1.DeviceSpec {
		s := d.Spec
		s.Properties = append([]v1beta1.Property(nil), s.Properties...)
		for i := range s.Properties {
			s.Properties[i].Desired = nil
		}
		return s
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

// RemoveDevice forgets a device: it was deleted, or hangs on another node.
func (h *Hub) RemoveDevice(key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.devices[key] == nil {
		return nil
	}
	if err := h.store.Write(store.Change{Bucket: store.Devices, Key: key}, store.Change{Bucket: store.Twins, Key: key}); err != nil {
		return err
	}
	delete(h.devices, key)
	delete(h.dirty, key)
	h.changed(key, Specification)
	return nil
}

// Uploaded says that the API has a value that was set on this node.
func (h *Hub) Uploaded(key, property string, v *v1beta1.Value) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return nil
	}
	state := merge.Uploaded(e.state, property, v)
	if err := h.store.Write(stateChange(key, state)); err != nil {
		return err
	}
	e.state = state
	return nil
}

func (h *Hub) write(bucket, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	return h.store.Write(store.Change{Bucket: bucket, Key: key, Value: data})
}

// Recall takes over values of a report that are newer than what the hub read from disk. It tells nobody.
func (h *Hub) Recall(key string, s v1beta1.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return
	}
	if state, changed := merge.Recall(e.state, s); changed {
		e.state = state
		h.markDirty(key)
	}
}
