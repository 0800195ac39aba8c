// Package merge holds the twins of one device as its node keeps them, and what each event makes of them. It is pure: value in, value out.
// Rooms of twin import it.
//
// Two sides write a desired value: the cluster and the node. The node remembers what the cluster said last. A change in the cluster
// therefore always wins; a value that was set on the node stands until then, and is pending until the cluster has taken it.
package merge

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// Version counts changes on each side, for clients of the message bus.
type Version struct {
	Cloud int64 `json:"cloud"`
	Edge  int64 `json:"edge"`
}

// Twin is one property. A nil value was never set.
type Twin struct {
	// Desired is what the driver shall make true, Observed what it has taken up, Reported what it found.
	Desired  *v1beta1.Value `json:"desired,omitempty"`
	Observed *v1beta1.Value `json:"observed,omitempty"`
	Reported *v1beta1.Value `json:"reported,omitempty"`
	// Cluster is the desired value in the API as this node saw it last; Pending says that Desired is newer than that.
	Cluster *v1beta1.Value `json:"cluster,omitempty"`
	Pending bool           `json:"pending,omitempty"`
	// Local is true for a property that clients of the message bus made and the API does not have.
	Local    bool    `json:"local,omitempty"`
	Type     string  `json:"type,omitempty"`
	Expected Version `json:"expectedVersion,omitzero"`
	Actual   Version `json:"actualVersion,omitzero"`
}

// State is one device as its node knows it.
type State struct {
	Twins map[string]Twin `json:"twins,omitempty"`
	// State is what the driver said of the device: online, offline, ok, unknown, unhealthy.
	State      string    `json:"state,omitempty"`
	LastOnline time.Time `json:"lastOnline,omitzero"`
}

// Clone returns a copy that shares no map; values are never changed in place.
func (s State) Clone() State {
	s.Twins = maps.Clone(s.Twins)
	return s
}

// Equal says whether two values are the same in value and metadata.
func Equal(a, b *v1beta1.Value) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Value == b.Value && maps.Equal(a.Metadata, b.Metadata)
}

// SameText says whether two values have the same value.
func SameText(a, b *v1beta1.Value) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Value == b.Value
}

// Spec takes over what the API says of a device's properties, and returns the names whose desired value the driver should hear of, in
// order of the specification.
func Spec(s State, properties []v1beta1.Property) (State, []string) {
	s = s.Clone()
	if s.Twins == nil {
		s.Twins = map[string]Twin{}
	}
	var changed []string
	there := map[string]bool{}
	for _, p := range properties {
		there[p.Name] = true
		t := s.Twins[p.Name]
		t.Local = false
		if desired := wanted(p.Desired); !Equal(desired, t.Cluster) {
			if !Equal(desired, t.Desired) {
				changed = append(changed, p.Name)
				t.Expected.Cloud++
			}
			t.Cluster, t.Desired, t.Pending = desired, desired, false
		}
		s.Twins[p.Name] = t
	}
	for name, t := range s.Twins {
		if !there[name] && !t.Local && !t.Pending {
			delete(s.Twins, name)
		}
	}
	return s, changed
}

// wanted turns an empty desired value, which nobody can mean, into none. Metadata alone is no wish.
func wanted(v *v1beta1.Value) *v1beta1.Value {
	if v == nil || v.Value == "" {
		return nil
	}
	return v
}

// Set makes a value that came from the node itself the desired one.
func Set(s State, name string, v *v1beta1.Value) State {
	s = s.Clone()
	if s.Twins == nil {
		s.Twins = map[string]Twin{}
	}
	t := s.Twins[name]
	t.Desired = v
	t.Pending = !t.Local && !SameText(v, t.Cluster)
	t.Expected.Edge++
	s.Twins[name] = t
	return s
}

// Uploaded says that the API has taken the value.
func Uploaded(s State, name string, v *v1beta1.Value) State {
	s = s.Clone()
	t, ok := s.Twins[name]
	if !ok {
		return s
	}
	t.Cluster = v
	t.Pending = !SameText(t.Desired, v)
	s.Twins[name] = t
	return s
}

// Report takes over what a driver found and what it has taken up; nil leaves a value as it is. It says whether a value is another one
// now, its time aside.
func Report(s State, name string, reported, observed *v1beta1.Value) (State, bool) {
	s = s.Clone()
	if s.Twins == nil {
		s.Twins = map[string]Twin{}
	}
	t := s.Twins[name]
	changed := false
	if reported != nil {
		changed = !same(reported, t.Reported)
		t.Reported = reported
		if changed {
			t.Actual.Edge++
		}
	}
	if observed != nil && observed.Value != "" {
		changed = changed || !same(observed, t.Observed)
		t.Observed = observed
	}
	s.Twins[name] = t
	return s, changed
}

// same is Equal without the time.
func same(a, b *v1beta1.Value) bool {
	if a == nil || b == nil {
		return a == b
	}
	timeless := func(m map[string]string) map[string]string {
		m = maps.Clone(m)
		delete(m, "timestamp")
		return m
	}
	return a.Value == b.Value && maps.Equal(timeless(a.Metadata), timeless(b.Metadata))
}

// Pending returns the names of properties that the API has to be told of, sorted.
func Pending(s State) []string {
	var out []string
	for name, t := range s.Twins {
		if t.Pending {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Status is the state in the form of the API, sorted by property.
func Status(s State) v1beta1.Status {
	out := v1beta1.Status{State: s.State}
	if !s.LastOnline.IsZero() {
		out.LastOnlineTime = s.LastOnline.UTC().Format(time.RFC3339)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Twins)) {
		t := s.Twins[name]
		if t.Local || t.Reported == nil && t.Observed == nil {
			continue
		}
		out.Twins = append(out.Twins, v1beta1.Twin{PropertyName: name, Reported: t.Reported, ObservedDesired: t.Observed})
	}
	return out
}

// Recall takes over what a report of the same device says, where it is newer.
func Recall(s State, from v1beta1.Status) (State, bool) {
	changed := false
	s = s.Clone()
	for _, r := range from.Twins {
		t, known := s.Twins[r.PropertyName]
		if !known || r.Reported == nil || stamp(r.Reported) <= stamp(t.Reported) {
			continue
		}
		t.Reported, changed = r.Reported, true
		if stamp(r.ObservedDesired) >= stamp(t.Observed) {
			t.Observed = r.ObservedDesired
		}
		s.Twins[r.PropertyName] = t
	}
	return s, changed
}

// stamp is the time of a value in milliseconds, 0 for none.
func stamp(v *v1beta1.Value) int64 {
	if v == nil {
		return 0
	}
	n, err := strconv.ParseInt(v.Metadata["timestamp"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
