// Package convert turns devices and their models from one version of the API into another. It is pure and loses nothing: what the other
// version has no place for travels in an annotation, and is put back where nobody has changed it meanwhile. Rooms of twin import it.
package convert

import (
	"encoding/json"
	"fmt"
	"reflect"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Versions that are served.
const (
	Alpha = "v1alpha2"
	Beta  = "v1beta1"
)

// Annotation is where an object of one version carries what it was in another: the version is appended.
const Annotation = "devices.kedge.io/as-"

// maxResidue is how many bytes the annotation may have; Kubernetes allows 256 KiB for all of an object.
const maxResidue = 200 << 10

// body is spec and status of an object.
type body = map[string]any

// translator turns a body into another version as far as that has a place for it. It takes wrong types for missing ones.
type translator func(body) body

// normal is the translation with numbers as JSON gives them.
func (t translator) normal(b body) body {
	out, err := normal(t(b))
	if err != nil {
		return body{} // of JSON comes JSON
	}
	return out
}

// Device converts a Device in place, all but its apiVersion.
func Device(content map[string]any, from, to string) error {
	return convert(content, from, to, map[string]translator{Alpha: deviceToAlpha, Beta: deviceToBeta})
}

// Model converts a DeviceModel in place, all but its apiVersion.
func Model(content map[string]any, from, to string) error {
	return convert(content, from, to, map[string]translator{Alpha: modelToAlpha, Beta: modelToBeta})
}

func convert(content map[string]any, from, to string, into map[string]translator) error {
	if from == to {
		return nil
	}
	if into[to] == nil || into[from] == nil {
		return fmt.Errorf("there is no way from %s to %s", from, to)
	}
	forward, back := into[to].normal, into[from].normal
	given, err := normal(body{"spec": content["spec"], "status": content["status"]})
	if err != nil {
		return err
	}
	prune(given)
	result := forward(given)
	if base, ok := take(content, Annotation+to); ok {
		before := forward(back(base))
		result, _ = restore(base, before, result).(body)
	}
	if !reflect.DeepEqual(back(result), given) {
		if err := put(content, Annotation+from, given); err != nil {
			return err
		}
	}
	for _, part := range []string{"spec", "status"} {
		if v, ok := result[part]; ok {
			content[part] = v
		} else {
			delete(content, part)
		}
	}
	return nil
}

// prune removes parts that are not there, so that nil and missing are the same.
func prune(b body) {
	for _, part := range []string{"spec", "status"} {
		if b[part] == nil {
			delete(b, part)
		}
	}
}

// normal brings numbers and containers into the form that JSON gives them.
func normal(b body) (body, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var out body
	return out, utiljson.Unmarshal(data, &out)
}

// take removes an annotation and returns what it holds. One that somebody has broken counts as none.
func take(content map[string]any, name string) (body, bool) {
	metadata, _ := content["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	text, ok := annotations[name].(string)
	if !ok {
		return nil, false
	}
	delete(annotations, name)
	if len(annotations) == 0 {
		delete(metadata, "annotations")
	}
	var b body
	if err := utiljson.Unmarshal([]byte(text), &b); err != nil || b == nil {
		return nil, false
	}
	prune(b)
	return b, true
}

func put(content map[string]any, name string, b body) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if len(data) > maxResidue {
		return fmt.Errorf("the object has %d bytes that the other version has no place for, more than %d", len(data), maxResidue)
	}
	metadata, ok := content["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		content["metadata"] = metadata
	}
	annotations, ok := metadata["annotations"].(map[string]any)
	if !ok {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	annotations[name] = string(data)
	return nil
}

// restore is base with the changes between before and after. Lists of named things are compared by name.
func restore(base, before, after any) any {
	if reflect.DeepEqual(before, after) {
		return base
	}
	switch after := after.(type) {
	case map[string]any:
		base, okBase := base.(map[string]any)
		before, okBefore := before.(map[string]any)
		if okBase && okBefore {
			return restoreMap(base, before, after)
		}
	case []any:
		base, okBase := named(base)
		before, okBefore := named(before)
		named, okAfter := named(after)
		if okBase && okBefore && okAfter {
			return restoreList(base, before, named)
		}
	}
	return after
}

func restoreMap(base, before, after map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range base {
		_, was := before[k]
		now, is := after[k]
		switch {
		case was && is:
			out[k] = restore(v, before[k], now)
		case is:
			out[k] = now
		case !was:
			out[k] = v
		}
	}
	for k, v := range after {
		if _, there := base[k]; !there {
			out[k] = v
		}
	}
	return out
}

// item is an element of a list of named things.
type item struct {
	name  string
	value any
}

// named reads a list of maps that have a name each.
func named(list any) ([]item, bool) {
	elements, ok := list.([]any)
	if !ok {
		return nil, false
	}
	var out []item
	seen := map[string]bool{}
	for _, e := range elements {
		m, _ := e.(map[string]any)
		name, ok := m["name"].(string)
		if !ok {
			name, ok = m["propertyName"].(string)
		}
		if !ok || seen[name] {
			return nil, false
		}
		seen[name] = true
		out = append(out, item{name, e})
	}
	return out, true
}

func restoreList(base, before, after []item) []any {
	find := func(list []item, name string) (any, bool) {
		for _, i := range list {
			if i.name == name {
				return i.value, true
			}
		}
		return nil, false
	}
	out := []any{}
	for _, b := range base {
		was, there := find(before, b.name)
		now, still := find(after, b.name)
		switch {
		case there && still:
			out = append(out, restore(b.value, was, now))
		case still:
			out = append(out, now)
		case !there:
			out = append(out, b.value)
		}
	}
	for _, a := range after {
		if _, there := find(base, a.name); !there {
			out = append(out, a.value)
		}
	}
	return out
}
