// Package traffic keeps the traffic of a Service inside the unit: from an EndpointSlice, its Service's annotations and the labels of
// nodes it makes the slice that consumers on one node see. Pure. pkg/grid offers it to the node's view of the API.
package traffic

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
)

// AnnotationNames of a Service says whose pods are also known by the name that is the same in every unit: a JSON object of
// StatefulSetGrid and its key.
const AnnotationNames = "grid.kedge.io/statefulset-grids"

// anywhere, as a key, lets every endpoint pass.
const anywhere = "*"

// Node is where consumers are, and what is known of other nodes.
type Node struct {
	Name   string
	Labels map[string]string
	// LabelsOf returns the labels of another node.
	LabelsOf func(name string) (map[string]string, bool)
}

// ServiceOf is the name of the Service that a slice belongs to, or "".
func ServiceOf(slice *discoveryv1.EndpointSlice) string {
	return slice.Labels[discoveryv1.LabelServiceName]
}

// Keys are the node labels that close the traffic of a Service; none leave it open.
func Keys(annotations map[string]string) []string {
	var keys []string
	if text, ok := annotations[superedge.AnnotationTopology]; ok {
		keys = list(text)
	}
	for _, k := range list(annotations[v1beta2.AnnotationTopology]) {
		if k == v1beta2.TopologyPool || k == v1beta2.TopologyZone { // both mean the pool
			k = v1beta2.LabelPool
		}
		keys = append(keys, k)
	}
	return keys
}

// list reads a JSON list of strings, or words between commas.
func list(text string) []string {
	var out []string
	if json.Unmarshal([]byte(text), &out) == nil {
		return out
	}
	for w := range strings.SplitSeq(text, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// Close returns the slice as consumers on the node see it, and the slice itself when nothing changes. annotations are those of its
// Service. An endpoint stays when its node has the same value of any of the keys, or is this node; nothing stays by accident:
// a unit without endpoints refuses.
func Close(slice *discoveryv1.EndpointSlice, annotations map[string]string, node Node) *discoveryv1.EndpointSlice {
	keys, names := Keys(annotations), gridNames(annotations)
	if len(keys) == 0 && len(names) == 0 {
		return slice
	}
	var kept []discoveryv1.Endpoint
	changed := false
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		at, known := endpointLabels(e, node)
		if len(keys) > 0 && !slices.Contains(keys, anywhere) && !(known && inside(e, at, keys, node)) {
			changed = true
			continue
		}
		kept = append(kept, *e)
		if alias := alias(e, at, names, node); alias != "" {
			same := *e
			same.Hostname = &alias
			kept = append(kept, same)
			changed = true
		}
	}
	if !changed {
		return slice
	}
	out := *slice
	out.Endpoints = kept
	return &out
}

// endpointLabels are the labels of the node that an endpoint is on.
func endpointLabels(e *discoveryv1.Endpoint, node Node) (map[string]string, bool) {
	switch {
	case e.NodeName == nil:
		return nil, false
	case *e.NodeName == node.Name:
		return node.Labels, true
	}
	return node.LabelsOf(*e.NodeName)
}

// inside says whether an endpoint is in the unit of the node by one of the keys.
func inside(e *discoveryv1.Endpoint, at map[string]string, keys []string, node Node) bool {
	if *e.NodeName == node.Name {
		return true
	}
	for _, k := range keys {
		if k == corev1.LabelHostname { // the other node is another host, whatever its label says
			continue
		}
		if v := node.Labels[k]; v != "" && at[k] == v {
			return true
		}
	}
	return false
}

// gridNames reads AnnotationNames.
func gridNames(annotations map[string]string) map[string]string {
	text, ok := annotations[AnnotationNames]
	if !ok {
		return nil
	}
	var out map[string]string
	if json.Unmarshal([]byte(text), &out) != nil {
		return nil
	}
	return out
}

// alias is the name without the unit of a pod in this node's own unit: GRID-ORDINAL for GRID-UNIT-ORDINAL. Grid and unit are known,
// not guessed: what lies between them in the name is not looked at.
func alias(e *discoveryv1.Endpoint, at map[string]string, names map[string]string, node Node) string {
	if e.Hostname == nil || len(names) == 0 {
		return ""
	}
	for grid, key := range names {
		unit := node.Labels[key]
		if unit == "" || at[key] != unit {
			continue
		}
		ordinal, ok := strings.CutPrefix(*e.Hostname, grid+"-"+unit+"-")
		if _, err := strconv.ParseUint(ordinal, 10, 32); ok && err == nil {
			return grid + "-" + ordinal
		}
	}
	return ""
}
