package hub

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

func metaOf(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

// Stamp returns the metadata of a value of now.
func Stamp(now time.Time) map[string]string {
	return map[string]string{"timestamp": strconv.FormatInt(now.UnixMilli(), 10)}
}

// SetDesired is a wish of somebody at the node. It is on disk and with the driver before it is with the API.
func (h *Hub) SetDesired(key, property string, v v1beta1.Value) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return fmt.Errorf("device %s: %w", key, ErrUnknownDevice)
	}
	if err := h.settable(e, property, v.Value); err != nil {
		return fmt.Errorf("property %s of %s: %w", property, key, err)
	}
	if v.Metadata == nil {
		v.Metadata = Stamp(time.Now())
	}
	state := merge.Set(e.state, property, &v)
	if err := h.store.Write(stateChange(key, state)); err != nil {
		return err
	}
	e.state = state
	delete(h.dirty, key)
	h.changed(key, Desired)
	return nil
}

func (h *Hub) settable(e *entry, property, text string) error {
	if t, ok := e.state.Twins[property]; ok && t.Local {
		return model.Value(v1beta1.ModelProperty{Type: modelType(t.Type)}, text)
	}
	m := h.modelOf(e.device)
	if m == nil {
		return fmt.Errorf("%w: the model of the device is not known yet", ErrRefused)
	}
	p, ok := model.Property(m, property)
	if !ok {
		return ErrUnknownProperty
	}
	if text == "" && p.Type != v1beta1.TypeString {
		return fmt.Errorf("%w: the value is empty", ErrRefused)
	}
	if err := model.Desired(p, text); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// modelType turns a type of the message bus into one of models.
func modelType(t string) string {
	switch strings.ToLower(t) {
	case "int", "integer":
		return v1beta1.TypeInt
	case "float", "double":
		return v1beta1.TypeDouble
	case "boolean":
		return v1beta1.TypeBoolean
	}
	return v1beta1.TypeString
}

// Reading is what a driver says of one property; nil leaves a value as it is.
type Reading struct {
	Property           string
	Reported, Observed *v1beta1.Value
}

// Report takes over readings. One that is of the wrong type is refused; one outside the bounds of the model is what the device really
// says: it is kept and flagged in its metadata, as is a property that the model does not have.
func (h *Hub) Report(key string, readings []Reading) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return fmt.Errorf("device %s: %w", key, ErrUnknownDevice)
	}
	now, changed := time.Now(), false
	state := e.state
	var errs []error
	for _, r := range readings {
		v, err := h.judge(e, r, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("property %s of %s: %w: %w", r.Property, key, ErrRefused, err))
			continue
		}
		var c bool
		state, c = merge.Report(state, r.Property, v, r.Observed)
		changed = changed || c
	}
	e.state = state
	h.pass(key, e, changed, now)
	return errors.Join(errs...)
}

// pass tells listeners of a report, and of an unchanged one now and then. It wants the lock.
func (h *Hub) pass(key string, e *entry, changed bool, now time.Time) {
	switch {
	case changed:
		e.refreshed = now
		h.markDirty(key)
		h.changed(key, Reported)
	case now.Sub(e.refreshed) >= refresh:
		e.refreshed = now
		h.changed(key, Refreshed)
	}
}

func (h *Hub) judge(e *entry, r Reading, now time.Time) (*v1beta1.Value, error) {
	if r.Reported == nil {
		return nil, nil
	}
	v := *r.Reported
	meta := map[string]string{}
	for k, text := range v.Metadata {
		meta[k] = text
	}
	if meta["timestamp"] == "" {
		meta["timestamp"] = strconv.FormatInt(now.UnixMilli(), 10)
	}
	p, ok := model.Property(h.modelOf(e.device), r.Property)
	err := model.Value(p, v.Value)
	outside := (*model.RangeError)(nil)
	switch {
	case errors.As(err, &outside):
		meta["problem"] = err.Error()
	case err != nil:
		return nil, err
	case !ok && !e.state.Twins[r.Property].Local:
		if err := h.stray(e, r.Property); err != nil {
			return nil, err
		}
		meta["problem"] = "not in the model"
	}
	v.Metadata = meta
	return &v, nil
}

// stray says whether one more property that nobody specified may be kept.
func (h *Hub) stray(e *entry, property string) error {
	if err := model.Name(property); err != nil {
		return err
	}
	if _, known := e.state.Twins[property]; !known && len(e.state.Twins) >= len(e.device.Spec.Properties)+maxStray {
		return fmt.Errorf("the device has %d properties that are not in its model", maxStray)
	}
	return nil
}

// states are what a device may be.
func states() []string { return []string{"online", "offline", "ok", "unknown", "unhealthy"} }

// ReportState takes over what a driver says of a device as a whole.
func (h *Hub) ReportState(key, state string) error {
	known := false
	for _, s := range states() {
		known = known || strings.EqualFold(s, state)
	}
	if !known {
		return fmt.Errorf("%w: state %q is none of %s", ErrRefused, state, strings.Join(states(), ", "))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return fmt.Errorf("device %s: %w", key, ErrUnknownDevice)
	}
	now := time.Now()
	changed := e.state.State != strings.ToLower(state)
	e.state.State = strings.ToLower(state)
	if e.state.State == "online" || e.state.State == "ok" {
		e.state.LastOnline = now
	}
	h.pass(key, e, changed, now)
	return nil
}
