package desk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// Codes of answers.
const (
	badRequest = 400
	notFound   = 404
	conflict   = 409
	internal   = 500
)

func (d *Desk) publish(topic string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = d.cfg.Publish(topic, data)
	}
	if err != nil {
		d.cfg.Log.Debug("message was not published", "topic", topic, "error", err)
	}
}

func base(eventID string) message.Base {
	return message.Base{EventID: eventID, Timestamp: time.Now().UnixMilli()}
}

func (d *Desk) fail(t message.Topic, eventID string, code int, err error) {
	d.publish(t.Answer(), message.Result{Base: base(eventID), Code: code, Reason: err.Error()})
}

func codeOf(err error) int {
	switch {
	case errors.Is(err, hub.ErrUnknownDevice):
		return notFound
	case errors.Is(err, hub.ErrConflict):
		return conflict
	case errors.Is(err, hub.ErrRefused), errors.Is(err, hub.ErrUnknownProperty):
		return badRequest
	}
	return internal
}

// key finds the device that a topic means.
func (d *Desk) key(t message.Topic) (string, error) {
	if t.Namespace != "" {
		return hub.Key(t.Namespace, t.Name), nil
	}
	if key, ok := d.cfg.Hub.Find(t.Name); ok {
		return key, nil
	}
	return "", fmt.Errorf("device %s: %w", t.Name, hub.ErrUnknownDevice)
}

// Answer does what a client asks, and says so in the form of the question.
func (d *Desk) Answer(t message.Topic, payload []byte) {
	if t.Verb == message.MembershipGet {
		b, err := message.ReadBase(payload)
		if err != nil {
			d.fail(t, "", badRequest, err)
			return
		}
		d.publish(t.Answer(), message.Members{Base: base(b.EventID), Devices: d.members()})
		return
	}
	key, err := d.key(t)
	if err != nil {
		b, _ := message.ReadBase(payload)
		d.fail(t, b.EventID, notFound, err)
		return
	}
	switch t.Verb {
	case message.TwinUpdate:
		d.update(t, key, payload)
	case message.TwinGet:
		d.get(t, key, payload)
	case message.StateUpdate:
		d.state(t, key, payload)
	}
}

func (d *Desk) get(t message.Topic, key string, payload []byte) {
	b, err := message.ReadBase(payload)
	if err != nil {
		d.fail(t, "", badRequest, err)
		return
	}
	v, ok := d.cfg.Hub.Get(key)
	if !ok {
		d.fail(t, b.EventID, notFound, hub.ErrUnknownDevice)
		return
	}
	d.publish(t.Answer(), message.Result{Base: base(b.EventID), Twin: twins(v, v.State.Twins)})
}

func (d *Desk) state(t message.Topic, key string, payload []byte) {
	s, err := message.ReadState(payload)
	if err != nil {
		d.fail(t, "", badRequest, err)
		return
	}
	if err := d.cfg.Hub.ReportState(key, s.State); err != nil {
		d.fail(t, s.EventID, codeOf(err), err)
		return
	}
	v, _ := d.cfg.Hub.Get(key)
	d.publish(t.Answer(), message.Result{Base: base(s.EventID), Device: &message.Device{
		Name: t.Name, State: v.State.State, LastOnlineTime: when(v.State.LastOnline),
	}})
}

func when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

func (d *Desk) update(t message.Topic, key string, payload []byte) {
	u, err := message.ReadUpdate(payload)
	if err != nil {
		d.fail(t, u.EventID, badRequest, err)
		return
	}
	before, after, err := d.cfg.Hub.Update(key, updates(u, time.Now()))
	if err != nil {
		d.fail(t, u.EventID, codeOf(err), err)
		return
	}
	v, ok := d.cfg.Hub.Get(key)
	if !ok {
		d.fail(t, u.EventID, notFound, hub.ErrUnknownDevice)
		return
	}
	changed := map[string]merge.Twin{}
	document := message.Document{Base: base(u.EventID), Twin: map[string]message.Change{}}
	for name := range u.Twin {
		c := message.Change{}
		if was, ok := before[name]; ok {
			c.Last = twin(v, name, was)
		}
		if is, ok := after[name]; ok {
			changed[name] = is
			c.Current = twin(v, name, is)
		}
		document.Twin[name] = c
	}
	d.publish(t.Answer(), message.Result{Base: base(u.EventID), Twin: twins(v, changed)})
	d.delta(t, v, u.EventID, true)
	d.publish(t.Document(), document)
}

// updates are the wishes of a message, in the order of names so that its answer does not depend on chance.
func updates(u message.Update, now time.Time) (out []hub.Update) {
	stamp := strconv.FormatInt(now.UnixMilli(), 10)
	for _, name := range slices.Sorted(maps.Keys(u.Twin)) {
		t := u.Twin[name]
		if t == nil {
			out = append(out, hub.Update{Property: name, Delete: true})
			continue
		}
		change := hub.Update{Property: name, Expected: t.Expected.APIValue(stamp), Actual: t.Actual.APIValue(stamp)}
		if t.Metadata != nil {
			change.Type = t.Metadata.Type
		}
		if t.ExpectedVersion != nil {
			change.ExpectedEdge = &t.ExpectedVersion.Edge
		}
		if t.ActualVersion != nil {
			change.ActualEdge = &t.ActualVersion.Edge
		}
		out = append(out, change)
	}
	return out
}

// delta tells what is wanted and not so, if there is any such thing. Unless again is true, what was told last is not repeated.
func (d *Desk) delta(t message.Topic, v hub.View, eventID string, again bool) {
	out := message.Delta{Base: base(eventID), Twin: map[string]*message.Twin{}, Delta: map[string]string{}}
	var said strings.Builder
	for _, name := range slices.Sorted(maps.Keys(v.State.Twins)) {
		s := v.State.Twins[name]
		if s.Desired == nil {
			continue
		}
		out.Twin[name] = twin(v, name, s)
		fmt.Fprintf(&said, "%q=%q@%q ", name, s.Desired.Value, s.Desired.Metadata["timestamp"])
		if s.Reported == nil || s.Reported.Value != s.Desired.Value {
			out.Delta[name] = s.Desired.Value
		}
	}
	d.mu.Lock()
	old := d.told[t.ID]
	d.told[t.ID] = said.String()
	d.mu.Unlock()
	if len(out.Delta) > 0 && (again || old != said.String()) {
		d.publish(t.Delta(), out)
	}
}

func twins(v hub.View, in map[string]merge.Twin) map[string]*message.Twin {
	out := map[string]*message.Twin{}
	for name, t := range in {
		out[name] = twin(v, name, t)
	}
	return out
}

// twin is a twin without its versions.
func twin(v hub.View, name string, t merge.Twin) *message.Twin {
	kind := t.Type
	if p, ok := model.Property(v.Model, name); ok {
		kind = strings.ToLower(p.Type)
	}
	if kind == "" {
		kind = "string"
	}
	optional := t.Local
	return &message.Twin{Expected: message.FromAPI(t.Desired), Actual: message.FromAPI(t.Reported), Optional: &optional, Metadata: &message.Metadata{Type: kind}}
}

func (d *Desk) members() []message.Device {
	out := []message.Device{}
	for _, v := range d.cfg.Hub.List() {
		out = append(out, member(v.Key, v))
	}
	return out
}

func member(key string, v hub.View) message.Device {
	_, name, _ := strings.Cut(key, "/")
	d := message.Device{ID: key, Name: name, State: v.State.State, LastOnline: when(v.State.LastOnline)}
	if v.Device != nil {
		d.Description = v.Device.Labels["description"]
	}
	return d
}
