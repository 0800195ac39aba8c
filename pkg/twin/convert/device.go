package convert

import (
	"maps"
	"reflect"
)

// get returns a map of a map, or nil.
func get(m map[string]any, key string) map[string]any {
	v, _ := m[key].(map[string]any)
	return v
}

// elements returns the maps of a list.
func elements(m map[string]any, key string) (out []map[string]any) {
	list, _ := m[key].([]any)
	for _, e := range list {
		if v, ok := e.(map[string]any); ok {
			out = append(out, v)
		}
	}
	return out
}

// copyKeys copies what is there.
func copyKeys(to, from map[string]any, keys ...string) {
	for _, k := range keys {
		if v, ok := from[k]; ok {
			to[k] = v
		}
	}
}

// set sets what is not empty.
func set(m map[string]any, key string, v map[string]any) {
	if len(v) > 0 {
		m[key] = v
	}
}

func deviceToBeta(b body) body {
	spec, out := get(b, "spec"), map[string]any{}
	copyKeys(out, spec, "deviceModelRef")
	if node := nodeOf(get(spec, "nodeSelector")); node != "" {
		out["nodeName"] = node
	}
	set(out, "protocol", protocolToBeta(get(spec, "protocol")))
	var properties []any
	at := map[string]map[string]any{}
	add := func(name any) map[string]any {
		text, ok := name.(string)
		if !ok {
			return map[string]any{}
		}
		if at[text] == nil {
			at[text] = map[string]any{"name": text, "reportToCloud": true}
			properties = append(properties, at[text])
		}
		return at[text]
	}
	for _, v := range elements(spec, "propertyVisitors") {
		p := add(v["propertyName"])
		copyKeys(p, v, "collectCycle", "reportCycle")
		set(p, "visitors", visitorToBeta(v))
	}
	for _, t := range elements(get(b, "status"), "twins") {
		p := add(t["propertyName"])
		if desired := get(t, "desired"); desired != nil {
			p["desired"] = desired
		}
	}
	if properties != nil {
		out["properties"] = properties
	}
	if len(out) == 0 {
		return body{}
	}
	return body{"spec": out}
}

func deviceToAlpha(b body) body {
	spec, out := get(b, "spec"), map[string]any{}
	copyKeys(out, spec, "deviceModelRef")
	if node, ok := spec["nodeName"].(string); ok && node != "" {
		out["nodeSelector"] = selectorOf(node)
	}
	set(out, "protocol", protocolToAlpha(get(spec, "protocol")))
	var visitors, twins []any
	for _, p := range elements(spec, "properties") {
		name, ok := p["name"].(string)
		if !ok {
			continue
		}
		v := visitorToAlpha(get(p, "visitors"))
		v["propertyName"] = name
		copyKeys(v, p, "collectCycle", "reportCycle")
		visitors = append(visitors, v)
		if desired := get(p, "desired"); desired != nil {
			twins = append(twins, map[string]any{"propertyName": name, "desired": desired})
		}
	}
	if visitors != nil {
		out["propertyVisitors"] = visitors
	}
	result := body{}
	if len(out) > 0 {
		result["spec"] = out
	}
	if twins != nil {
		result["status"] = map[string]any{"twins": twins}
	}
	return result
}

// nodeOf is the only value of a selector that drivers of the family have ever looked at.
func nodeOf(selector map[string]any) string {
	for _, term := range elements(selector, "nodeSelectorTerms") {
		for _, e := range elements(term, "matchExpressions") {
			if values, _ := e["values"].([]any); len(values) > 0 {
				node, _ := values[0].(string)
				return node
			}
			return ""
		}
		return ""
	}
	return ""
}

func selectorOf(node string) map[string]any {
	return map[string]any{"nodeSelectorTerms": []any{map[string]any{"matchExpressions": []any{
		map[string]any{"key": "", "operator": "In", "values": []any{node}},
	}}}}
}

// Fields of the older version that have places of their own there and are keys of configData in the newer one.
func comKeys() []string {
	return []string{"serialPort", "baudRate", "dataBits", "parity", "stopBits"}
}
func tcpKeys() []string { return []string{"ip", "port"} }
func commonKeys() []string {
	return []string{"commType", "reconnTimeout", "reconnRetryTimes", "collectTimeout", "collectRetryTimes", "collectType", "customizedValues"}
}

func protocolKeys() map[string][]string {
	return map[string][]string{
		"modbus": {"slaveID"}, "bluetooth": {"macAddress"},
		"opcua": {"url", "userName", "password", "securityPolicy", "securityMode", "certificate", "privateKey", "timeout"},
	}
}

func visitorKeys() map[string][]string {
	return map[string][]string{
		"modbus": {"register", "offset", "limit", "scale", "isSwap", "isRegisterSwap"}, "opcua": {"nodeID", "browseName"},
		"bluetooth": {"characteristicUUID", "dataWrite", "dataConverter"},
	}
}

func protocolToBeta(p map[string]any) map[string]any {
	out, config := map[string]any{}, map[string]any{}
	if c := get(p, "customizedProtocol"); c != nil {
		copyKeys(out, c, "protocolName")
		maps.Copy(config, get(c, "configData"))
	}
	for _, name := range []string{"opcua", "modbus", "bluetooth"} {
		if c, ok := p[name].(map[string]any); ok {
			out["protocolName"] = name
			maps.Copy(config, c)
		}
	}
	if c := get(p, "common"); c != nil {
		maps.Copy(config, get(c, "com"))
		maps.Copy(config, get(c, "tcp"))
		copyKeys(config, c, commonKeys()...)
	}
	set(out, "configData", config)
	return out
}

// protocolToAlpha uses the older version's own places where they hold everything, else its place for anything.
func protocolToAlpha(p map[string]any) map[string]any {
	if len(p) == 0 {
		return nil
	}
	name, _ := p["protocolName"].(string)
	if keys := protocolKeys()[name]; keys != nil {
		config, own, common := get(p, "configData"), map[string]any{}, map[string]any{}
		copyKeys(own, config, keys...)
		com, tcp := map[string]any{}, map[string]any{}
		copyKeys(com, config, comKeys()...)
		copyKeys(tcp, config, tcpKeys()...)
		copyKeys(common, config, commonKeys()...)
		set(common, "com", com)
		set(common, "tcp", tcp)
		out := map[string]any{name: own}
		set(out, "common", common)
		if reflect.DeepEqual(protocolToBeta(out), p) {
			return out
		}
	}
	return map[string]any{"customizedProtocol": p}
}

func visitorToBeta(v map[string]any) map[string]any {
	out, config := map[string]any{}, map[string]any{}
	if c := get(v, "customizedProtocol"); c != nil {
		copyKeys(out, c, "protocolName")
		maps.Copy(config, get(c, "configData"))
	}
	for _, name := range []string{"opcua", "modbus", "bluetooth"} {
		if c, ok := v[name].(map[string]any); ok {
			out["protocolName"] = name
			maps.Copy(config, c)
		}
	}
	copyKeys(config, v, "customizedValues")
	set(out, "configData", config)
	return out
}

func visitorToAlpha(v map[string]any) map[string]any {
	if len(v) == 0 {
		return map[string]any{}
	}
	name, _ := v["protocolName"].(string)
	if keys := visitorKeys()[name]; keys != nil {
		own := map[string]any{}
		copyKeys(own, get(v, "configData"), keys...)
		out := map[string]any{name: own}
		copyKeys(out, get(v, "configData"), "customizedValues")
		if reflect.DeepEqual(visitorToBeta(out), v) {
			return out
		}
	}
	return map[string]any{"customizedProtocol": v}
}
