// Package convert is the ways between versions of the grid's kinds: content in, content out. Where a version cannot say something, the
// spec as it was written travels in an annotation and comes back unless somebody changed what it became.
// Rooms of pkg/grid may import it.
package convert

import (
	"encoding/json"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/util/json"
)

// annotationKept holds, as JSON, the spec of an object in the version in which it was written.
const annotationKept = "grid.kedge.io/kept-spec"

// maxKept bounds the annotation in bytes: all annotations of an object have 256 KiB.
const maxKept = 128 << 10

// kept is the content of annotationKept.
type kept struct {
	Version string         `json:"version"`
	Spec    map[string]any `json:"spec"`
}

// way turns a spec of one version into one of another; it does not change what it is given.
type way func(spec map[string]any) (map[string]any, error)

// remembering converts content with there; back is the opposite way. What gets lost is kept, and what was kept comes back.
func remembering(content map[string]any, from, to string, there, back way) error {
	before := section(content, "spec")
	memory := takeKept(content)
	if memory.Version == to {
		again, err := back(memory.Spec)
		if err == nil && same(again, before) {
			content["spec"] = memory.Spec
			return nil
		}
	}
	after, err := there(before)
	if err != nil {
		return err
	}
	content["spec"] = after
	again, err := back(after)
	if err == nil && same(again, before) {
		return nil
	}
	return keep(content, kept{Version: from, Spec: before})
}

// same compares specs; an empty one is as good as none.
func same(a, b map[string]any) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// keep writes the annotation, unless it would be too large.
func keep(content map[string]any, k kept) error {
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keep the spec: %w", err)
	}
	if len(data) > maxKept {
		return nil
	}
	metadata := section(content, "metadata")
	annotations := section(metadata, "annotations")
	annotations[annotationKept] = string(data)
	metadata["annotations"] = annotations
	content["metadata"] = metadata
	return nil
}

// takeKept removes the annotation and returns what it held; what cannot be read is forgotten.
func takeKept(content map[string]any) kept {
	metadata, _ := content["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	text, ok := annotations[annotationKept].(string)
	if !ok {
		return kept{}
	}
	delete(annotations, annotationKept)
	if len(annotations) == 0 {
		delete(metadata, "annotations")
	}
	var k kept
	if err := kjson.Unmarshal([]byte(text), &k); err != nil || k.Spec == nil {
		return kept{}
	}
	return k
}

// section returns a map inside a map, or an empty one.
func section(m map[string]any, key string) map[string]any {
	if s, ok := m[key].(map[string]any); ok {
		return s
	}
	return map[string]any{}
}

// copyOf returns a deep copy of JSON content.
func copyOf(m map[string]any) map[string]any { return runtime.DeepCopyJSON(m) }

// rename moves fields, old name to new.
func rename(m map[string]any, names map[string]string) {
	for old, name := range names {
		if v, ok := m[old]; ok {
			delete(m, old)
			m[name] = v
		}
	}
}

// turned is a map the other way round.
func turned(names map[string]string) map[string]string {
	out := make(map[string]string, len(names))
	for a, b := range names {
		out[b] = a
	}
	return out
}

// only copies the named fields.
func only(m map[string]any, names ...string) map[string]any {
	out := map[string]any{}
	for _, n := range names {
		if v, ok := m[n]; ok {
			out[n] = runtime.DeepCopyJSONValue(v)
		}
	}
	return out
}

// Into reads JSON content into a Go value; whole numbers stay whole.
func Into(content any, out any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return kjson.Unmarshal(data, out)
}
