package hub

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// ErrConflict says that somebody else was faster.
var ErrConflict = errors.New("the version is not the current one")

// Update is what a client of the message bus wants of one property.
type Update struct {
	Property string
	// Delete removes a property that clients made.
	Delete           bool
	Expected, Actual *v1beta1.Value
	// Type is for a property that is made: string, int, float, double, boolean or bytes.
	Type string
	// ExpectedEdge and ActualEdge, when set, are the edge versions that the client has seen.
	ExpectedEdge, ActualEdge *int64
}

// Update makes all changes or none. What is wanted is on disk when it returns. It returns the twins as they were and are.
func (h *Hub) Update(key string, updates []Update) (before, after map[string]merge.Twin, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return nil, nil, fmt.Errorf("device %s: %w", key, ErrUnknownDevice)
	}
	now := time.Now()
	changing := &entry{device: e.device, state: e.state.Clone()}
	kind, durable := Kind(0), false
	for _, u := range updates {
		k, d, err := h.apply(changing, u, now)
		if err != nil {
			return nil, nil, fmt.Errorf("property %s of %s: %w", u.Property, key, err)
		}
		kind, durable = kind|k, durable || d
	}
	if durable {
		if err := h.store.Write(stateChange(key, changing.state)); err != nil {
			return nil, nil, err
		}
		delete(h.dirty, key)
	} else if kind != 0 {
		h.markDirty(key)
	}
	before, after = maps.Clone(e.state.Twins), maps.Clone(changing.state.Twins)
	e.state = changing.state
	if kind != 0 {
		e.refreshed = now
		h.changed(key, kind)
	}
	return before, after, nil
}

// apply makes one change in e. It wants the lock.
func (h *Hub) apply(e *entry, u Update, now time.Time) (kind Kind, durable bool, err error) {
	t, known := e.state.Twins[u.Property]
	if u.ExpectedEdge != nil && *u.ExpectedEdge < t.Expected.Edge || u.ActualEdge != nil && *u.ActualEdge < t.Actual.Edge {
		return 0, false, ErrConflict
	}
	if u.Delete || strings.EqualFold(u.Type, "deleted") {
		if known && !t.Local {
			return 0, false, fmt.Errorf("%w: it is in the specification of the device", ErrRefused)
		}
		delete(e.state.Twins, u.Property)
		return Desired, known, nil
	}
	if !known {
		if err := h.adopt(e, u); err != nil {
			return 0, false, err
		}
	}
	if u.Expected != nil {
		if err := h.settable(e, u.Property, u.Expected.Value); err != nil {
			return 0, false, err
		}
		if !merge.SameText(e.state.Twins[u.Property].Desired, u.Expected) {
			e.state = merge.Set(e.state, u.Property, u.Expected)
			kind, durable = kind|Desired, true
		}
	}
	if u.Actual != nil {
		if local := e.state.Twins[u.Property]; local.Local {
			if err := model.Value(v1beta1.ModelProperty{Type: modelType(local.Type)}, u.Actual.Value); err != nil {
				return 0, false, fmt.Errorf("%w: %w", ErrRefused, err)
			}
		}
		v, err := h.judge(e, Reading{Property: u.Property, Reported: u.Actual}, now)
		if err != nil {
			return 0, false, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		var changed bool
		if e.state, changed = merge.Report(e.state, u.Property, v, nil); changed {
			kind |= Reported
		}
	}
	return kind, durable, nil
}

// adopt makes a property: one of the specification that has said nothing yet, else one that is the clients' own.
func (h *Hub) adopt(e *entry, u Update) error {
	if _, ok := model.Property(h.modelOf(e.device), u.Property); ok {
		return nil
	}
	if err := h.stray(e, u.Property); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	e.state = e.state.Clone()
	if e.state.Twins == nil {
		e.state.Twins = map[string]merge.Twin{}
	}
	e.state.Twins[u.Property] = merge.Twin{Local: true, Type: u.Type}
	return nil
}

// Find returns the key of a device by its name alone: the one in the namespace default, else the only one.
func (h *Hub) Find(name string) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := Key("default", name); h.devices[key] != nil {
		return key, true
	}
	found := ""
	for key, e := range h.devices {
		if e.device.Name == name {
			if found != "" {
				return "", false
			}
			found = key
		}
	}
	return found, found != ""
}
