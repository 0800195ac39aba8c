package object

import (
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MergeDiff is the JSON merge patch that turns a into b.
func MergeDiff(a, b map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range b {
		was, had := a[k]
		if had && reflect.DeepEqual(was, v) {
			continue
		}
		x, one := was.(map[string]any)
		y, two := v.(map[string]any)
		if one && two {
			if d := MergeDiff(x, y); len(d) > 0 {
				out[k] = d
			}
			continue
		}
		out[k] = v
	}
	for k := range a {
		if _, has := b[k]; !has {
			out[k] = nil
		}
	}
	return out
}

// KeepTimes gives conditions that did not change the time at which they did.
func KeepTimes(old, now map[string]any) {
	before := map[any]map[string]any{}
	list, _ := old["conditions"].([]any)
	for _, c := range list {
		if c, ok := c.(map[string]any); ok {
			before[c["type"]] = c
		}
	}
	list, _ = now["conditions"].([]any)
	for _, c := range list {
		c, _ := c.(map[string]any)
		if b := before[c["type"]]; b != nil && b["status"] == c["status"] {
			c["lastTransitionTime"] = b["lastTransitionTime"]
		}
	}
}

// Condition makes one condition.
func Condition(kind string, is bool, reason, message string, generation int64) map[string]any {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	return map[string]any{
		"type": kind, "status": string(status), "reason": reason, "message": message, "observedGeneration": generation,
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
	}
}
