package convert

import (
	"encoding/json"
	"strconv"
	"strings"
)

func modelToBeta(b body) body {
	spec, out := get(b, "spec"), map[string]any{}
	copyKeys(out, spec, "protocol")
	var properties []any
	for _, p := range elements(spec, "properties") {
		now := map[string]any{}
		copyKeys(now, p, "name", "description")
		for _, name := range []string{"int", "string", "double", "float", "boolean", "bytes"} {
			t, ok := get(p, "type")[name].(map[string]any)
			if !ok {
				continue
			}
			now["type"] = strings.ToUpper(name)
			copyKeys(now, t, "accessMode", "unit")
			for _, bound := range []string{"minimum", "maximum"} {
				if text := numberText(t[bound]); text != "" {
					now[bound] = text
				}
			}
			break
		}
		properties = append(properties, now)
	}
	return modelBody(out, properties)
}

func modelToAlpha(b body) body {
	spec, out := get(b, "spec"), map[string]any{}
	copyKeys(out, spec, "protocol")
	var properties []any
	for _, p := range elements(spec, "properties") {
		now := map[string]any{}
		copyKeys(now, p, "name", "description")
		kind, _ := p["type"].(string)
		name := strings.ToLower(kind)
		t := map[string]any{}
		switch name {
		case "int", "double", "float":
			copyKeys(t, p, "accessMode", "unit")
			for _, bound := range []string{"minimum", "maximum"} {
				if n := numberOf(p[bound], name == "int"); n != nil {
					t[bound] = n
				}
			}
		case "string", "boolean", "bytes", "stream":
			copyKeys(t, p, "accessMode")
			if name == "stream" {
				name = "string" // the older version has no streams
			}
		default:
			name = ""
		}
		if name != "" {
			now["type"] = map[string]any{name: t}
		}
		properties = append(properties, now)
	}
	return modelBody(out, properties)
}

func modelBody(spec map[string]any, properties []any) body {
	if properties != nil {
		spec["properties"] = properties
	}
	if len(spec) == 0 {
		return body{}
	}
	return body{"spec": spec}
}

// numberText is a JSON number as text, or "".
func numberText(v any) string {
	switch v := v.(type) {
	case int64, float64:
		text, err := json.Marshal(v)
		if err == nil {
			return string(text)
		}
	}
	return ""
}

// numberOf is text as a JSON number, or nil.
func numberOf(v any, whole bool) any {
	text, _ := v.(string)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if whole {
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if _, e := json.Marshal(f); err != nil || e != nil {
		return nil
	}
	return f
}
