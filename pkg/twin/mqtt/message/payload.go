package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// maxProperties is how many properties one message may name.
const maxProperties = 512

// Base is in every message. Timestamp is in milliseconds.
type Base struct {
	EventID   string `json:"event_id"`
	Timestamp int64  `json:"timestamp"`
}

// Value is a value with its time in milliseconds.
type Value struct {
	Value    *string   `json:"value,omitempty"`
	Metadata *Metadata `json:"metadata,omitempty"`
}

// Metadata of a value is its time, of a twin its type.
type Metadata struct {
	Timestamp int64  `json:"timestamp,omitempty"`
	Type      string `json:"type,omitempty"`
}

// Version counts changes on both sides.
type Version struct {
	Cloud int64 `json:"cloud"`
	Edge  int64 `json:"edge"`
}

// Twin is one property.
type Twin struct {
	Expected        *Value    `json:"expected,omitempty"`
	Actual          *Value    `json:"actual,omitempty"`
	Optional        *bool     `json:"optional,omitempty"`
	Metadata        *Metadata `json:"metadata,omitempty"`
	ExpectedVersion *Version  `json:"expected_version,omitempty"`
	ActualVersion   *Version  `json:"actual_version,omitempty"`
}

// Update asks for changes; a nil twin deletes.
type Update struct {
	Base
	Twin map[string]*Twin `json:"twin"`
}

// Result answers an update, a get, and everything that went wrong.
type Result struct {
	Base
	Code   int              `json:"code,omitempty"`
	Reason string           `json:"reason,omitempty"`
	Twin   map[string]*Twin `json:"twin,omitempty"`
	Device *Device          `json:"device,omitempty"`
}

// Delta tells what is wanted and not yet so.
type Delta struct {
	Base
	Twin  map[string]*Twin  `json:"twin"`
	Delta map[string]string `json:"delta"`
}

// Document tells what was and is.
type Document struct {
	Base
	Twin map[string]Change `json:"twin"`
}

// Change is one property in a document.
type Change struct {
	Last    *Twin `json:"last"`
	Current *Twin `json:"current"`
}

// State says how a device is.
type State struct {
	Base
	State string `json:"state"`
}

// Device is one device in an answer.
type Device struct {
	ID             string         `json:"id,omitempty"`
	Name           string         `json:"name"`
	Description    string         `json:"description,omitempty"`
	State          string         `json:"state,omitempty"`
	LastOnline     string         `json:"last_online,omitempty"`
	LastOnlineTime string         `json:"lastOnlineTime,omitempty"`
	Attributes     map[string]any `json:"attributes,omitempty"`
}

// Members lists the devices of the node.
type Members struct {
	Base
	Devices []Device `json:"devices"`
}

// Membership tells of devices that came and went.
type Membership struct {
	Base
	Added   []Device `json:"added_devices"`
	Removed []Device `json:"removed_devices"`
}

// ReadUpdate reads the payload of an update.
func ReadUpdate(payload []byte) (u Update, err error) {
	if err := read(payload, &u); err != nil {
		return u, err
	}
	if len(u.Twin) == 0 || len(u.Twin) > maxProperties {
		return u, fmt.Errorf("twin: want 1 to %d properties, have %d", maxProperties, len(u.Twin))
	}
	for name, t := range u.Twin {
		if t == nil || t.Metadata == nil {
			continue
		}
		switch strings.ToLower(t.Metadata.Type) {
		case "", "string", "int", "integer", "float", "double", "boolean", "bytes", "deleted":
		default:
			return u, fmt.Errorf("twin.%s.metadata.type: %q is none of string, int, float, double, boolean, bytes", name, t.Metadata.Type)
		}
	}
	return u, nil
}

// ReadState reads the payload of a state.
func ReadState(payload []byte) (s State, err error) { return s, read(payload, &s) }

// ReadBase reads the payload of a question. An empty one is as good.
func ReadBase(payload []byte) (b Base, err error) {
	if len(bytes.TrimSpace(payload)) == 0 {
		return b, nil
	}
	return b, read(payload, &b)
}

func read(payload []byte, into any) error {
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("the payload is not understood: %w", err)
	}
	return nil
}

// APIValue is the value in the form of the API, or nil.
func (v *Value) APIValue(stamp string) *v1beta1.Value {
	if v == nil || v.Value == nil {
		return nil
	}
	if v.Metadata != nil && v.Metadata.Timestamp > 0 {
		stamp = fmt.Sprint(v.Metadata.Timestamp)
	}
	return &v1beta1.Value{Value: *v.Value, Metadata: map[string]string{"timestamp": stamp}}
}

// FromAPI is a value of the API, or nil.
func FromAPI(v *v1beta1.Value) *Value {
	if v == nil {
		return nil
	}
	out := &Value{Value: &v.Value}
	var ms int64
	if _, err := fmt.Sscan(v.Metadata["timestamp"], &ms); err == nil {
		out.Metadata = &Metadata{Timestamp: ms}
	}
	return out
}
