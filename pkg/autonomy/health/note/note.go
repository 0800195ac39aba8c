// Package note holds what the server and the nodes write to each other about neighbours: two annotations of a Node. A node may write
// to its own Node only, which the API server enforces.
// It is an inner room of autonomy: health and its gossip import it.
package note

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// The annotations.
const (
	// Neighbourhood is written by the server: whom the node gossips with, and how.
	Neighbourhood = "autonomy.kedge.io/neighbourhood"
	// Neighbours is written by the node when it changes: what it says of others.
	Neighbours = "autonomy.kedge.io/neighbours"
)

// Limits of what is read.
const (
	maxText  = 8 << 10 // bytes of an annotation
	maxNames = 64      // neighbours in a report
	maxSeeds = 8
)

// Place is where and how a node gossips.
type Place struct {
	// Unit is whose members gossip; empty for the whole cluster.
	Unit string `json:"unit,omitempty"`
	// Port is where they listen, UDP and TCP.
	Port int `json:"port"`
	// Probe is the time between two probes of a node, in milliseconds.
	Probe int `json:"probe"`
	// Near restricts the gossip to the node's own local network.
	Near bool `json:"near,omitempty"`
	// Seeds are addresses of members to begin with.
	Seeds []string `json:"seeds,omitempty"`
}

// String is the annotation's value.
func (p Place) String() string {
	data, err := json.Marshal(p)
	if err != nil { // cannot be: there is nothing in it that has no JSON
		return ""
	}
	return string(data)
}

// Interval is Probe as a duration.
func (p Place) Interval() time.Duration { return time.Duration(p.Probe) * time.Millisecond }

// ParsePlace reads the annotation of a Node.
func ParsePlace(text string) (Place, error) {
	var p Place
	if len(text) > maxText {
		return p, errors.New("neighbourhood is too long")
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, fmt.Errorf("read neighbourhood: %w", err)
	}
	if p.Port < 1 || p.Port > 65535 || p.Probe < 100 || p.Probe > 3_600_000 || len(p.Seeds) > maxSeeds {
		return p, errors.New("read neighbourhood: port, probe or seeds are out of bounds")
	}
	return p, nil
}

// Report is what a node says of its neighbours.
type Report map[string]verdict.View

// form is a report in JSON.
type form struct {
	Alive []string `json:"alive,omitempty"`
	Mute  []string `json:"mute,omitempty"`
	Gone  []string `json:"gone,omitempty"`
}

// String is the annotation's value: the same for equal reports.
func (r Report) String() string {
	var f form
	for name, view := range r {
		switch view {
		case verdict.Alive:
			f.Alive = append(f.Alive, name)
		case verdict.Mute:
			f.Mute = append(f.Mute, name)
		case verdict.Gone:
			f.Gone = append(f.Gone, name)
		}
	}
	for _, names := range [][]string{f.Alive, f.Mute, f.Gone} {
		slices.Sort(names)
	}
	data, err := json.Marshal(f)
	if err != nil {
		return ""
	}
	return string(data)
}

// ParseReport reads the annotation of a Node. A node that is in it twice counts as alive.
func ParseReport(text string) (Report, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxText {
		return nil, errors.New("report of neighbours is too long")
	}
	var f form
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, fmt.Errorf("read report of neighbours: %w", err)
	}
	if len(f.Alive)+len(f.Mute)+len(f.Gone) > maxNames {
		return nil, fmt.Errorf("report of more than %d neighbours", maxNames)
	}
	r := Report{}
	for _, group := range []struct {
		names []string
		view  verdict.View
	}{{f.Gone, verdict.Gone}, {f.Mute, verdict.Mute}, {f.Alive, verdict.Alive}} {
		for _, name := range group.names {
			r[name] = group.view
		}
	}
	return r, nil
}
