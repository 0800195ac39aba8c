// Package hub is the twin core of a node: the one place that knows its devices, what is wanted of them and what they report. Drivers,
// clients of the message bus, the operator at the node and the API meet here and nowhere else. Rooms of twin import it.
//
// What somebody wants is on disk before it is acknowledged. Reports are kept in memory and written together, after Flush at the latest; an
// unchanged value is not written.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
	"github.com/kedge-io/kedge/pkg/twin/store"
)

// flushEach is added up for the devices of the node: a thousand that change once a second are written once a minute, and would wear a
// flash card down otherwise.
const flushEach = 60 * time.Millisecond

// Errors that callers tell apart.
var (
	ErrUnknownDevice   = errors.New("this node has no such device")
	ErrUnknownProperty = errors.New("the device has no such property")
	ErrRefused         = errors.New("refused")
)

const (
	// refresh is how old a time stamp may grow in the API while the value stays as it is.
	refresh = 5 * time.Minute
	// maxStray is how many properties that are in no specification a device may have.
	maxStray = 128
)

// Config says where the hub keeps its store.
type Config struct {
	// Dir is the directory of the store; it is made when the first device comes.
	Dir string
	// Node is the name of this node.
	Node string
	// Flush is how long a report may be in memory only, or flushEach for each device if that is longer. Default 2 s.
	Flush time.Duration
	Log   *slog.Logger
}

// Hub is safe for concurrent use.
type Hub struct {
	cfg   Config
	store *store.Store

	mu      sync.Mutex
	models  map[string]*v1beta1.DeviceModel
	devices map[string]*entry
	dirty   map[string]bool // devices whose state is newer than the disk
	kick    chan struct{}   // dirty is no longer empty
	subs    []*Changes
}

// entry is one device. What its fields point to is replaced, never changed.
type entry struct {
	device    *v1beta1.Device
	state     merge.State
	refreshed time.Time // last time that an unchanged report was passed on
}

// New reads what the node knew before.
func New(cfg Config) (*Hub, error) {
	if cfg.Flush == 0 {
		cfg.Flush = 2 * time.Second
	}
	s, err := store.Open(filepath.Join(cfg.Dir, "devices.db"), cfg.Log)
	if err != nil {
		return nil, err
	}
	h := &Hub{
		cfg: cfg, store: s, models: map[string]*v1beta1.DeviceModel{}, devices: map[string]*entry{},
		dirty: map[string]bool{}, kick: make(chan struct{}, 1),
	}
	if err := h.load(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return h, nil
}

func (h *Hub) load() error {
	err := h.store.Each(store.Models, func(key string, value []byte) error {
		m := &v1beta1.DeviceModel{}
		h.models[key] = m
		return json.Unmarshal(value, m)
	})
	if err != nil {
		return fmt.Errorf("read models: %w", err)
	}
	err = h.store.Each(store.Devices, func(key string, value []byte) error {
		d := &v1beta1.Device{}
		h.devices[key] = &entry{device: d}
		return json.Unmarshal(value, d)
	})
	if err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	err = h.store.Each(store.Twins, func(key string, value []byte) error {
		if e := h.devices[key]; e != nil {
			return json.Unmarshal(value, &e.state)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read twins: %w", err)
	}
	return nil
}

// Node is the name of this node.
func (h *Hub) Node() string { return h.cfg.Node }

// Store is the hub's file, for what drivers and the way to the API keep beside the twins.
func (h *Hub) Store() *store.Store { return h.store }

// Key is how the hub names an object.
func Key(namespace, name string) string { return namespace + "/" + name }

// Run writes reports to disk until ctx is done, and once more then.
func (h *Hub) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return errors.Join(h.Flush(), h.store.Close())
		case <-h.kick:
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(h.cfg.Flush, time.Duration(h.Len())*flushEach)):
		}
		if err := h.Flush(); err != nil {
			h.cfg.Log.Warn("reports of devices are not on disk", "error", err)
		}
	}
}

// Flush writes what is in memory only.
func (h *Hub) Flush() error {
	h.mu.Lock()
	var changes []store.Change
	for key := range h.dirty {
		if e := h.devices[key]; e != nil {
			changes = append(changes, stateChange(key, e.state))
		}
	}
	clear(h.dirty)
	h.mu.Unlock()
	slices.SortFunc(changes, func(a, b store.Change) int { return compare(a.Key, b.Key) })
	return h.store.Write(changes...)
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func stateChange(key string, s merge.State) store.Change {
	data, _ := json.Marshal(s) // strings, numbers and times only
	return store.Change{Bucket: store.Twins, Key: key, Value: data}
}

// markDirty wants the lock.
func (h *Hub) markDirty(key string) {
	h.dirty[key] = true
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// View is one device at one moment. What it points to is not changed by anybody.
type View struct {
	Key string
	// Device is as in the API, with its model's configuration merged in and the desired values that stand on this node.
	Device *v1beta1.Device
	// Model is nil while there is none.
	Model *v1beta1.DeviceModel
	State merge.State
}

// Get returns a device.
func (h *Hub) Get(key string) (View, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.devices[key]
	if e == nil {
		return View{}, false
	}
	return h.view(key, e), true
}

// List returns all devices, sorted by key.
func (h *Hub) List() []View {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]View, 0, len(h.devices))
	for key, e := range h.devices {
		out = append(out, h.view(key, e))
	}
	slices.SortFunc(out, func(a, b View) int { return compare(a.Key, b.Key) })
	return out
}

// Len is the number of devices.
func (h *Hub) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.devices)
}

// view wants the lock.
func (h *Hub) view(key string, e *entry) View {
	m := h.modelOf(e.device)
	d := model.Effective(e.device, m)
	d.Spec.Properties = slices.Clone(d.Spec.Properties)
	there := map[string]bool{}
	for i, p := range d.Spec.Properties {
		d.Spec.Properties[i].Desired = e.state.Twins[p.Name].Desired
		there[p.Name] = true
	}
	for _, name := range merge.Pending(e.state) {
		if !there[name] {
			d.Spec.Properties = append(d.Spec.Properties, v1beta1.Property{Name: name, Desired: e.state.Twins[name].Desired})
		}
	}
	return View{Key: key, Device: d, Model: m, State: e.state}
}

func (h *Hub) modelOf(d *v1beta1.Device) *v1beta1.DeviceModel {
	if d.Spec.DeviceModelRef == nil {
		return nil
	}
	return h.models[Key(d.Namespace, d.Spec.DeviceModelRef.Name)]
}
