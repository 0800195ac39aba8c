package convert

import "fmt"

// NodeUnit converts between v1alpha1 and v1alpha2 of site.superedge.io.
func NodeUnit(content map[string]any, from, to string) error {
	names := map[string]string{"readyrate": "readyRate", "readynodes": "readyNodes", "notreadynodes": "notReadyNodes"}
	return site(content, from, to, unitUp, unitDown, names)
}

// NodeGroup converts between v1alpha1 and v1alpha2 of site.superedge.io.
func NodeGroup(content map[string]any, from, to string) error {
	spec := map[string]string{"nodeunits": "nodeUnits", "autofindnodekeys": "autoFindNodeKeys"}
	status := map[string]string{"unitnumber": "unitNumber", "nodeunits": "nodeUnits", "workloadstatus": "workloadStatus"}
	move := func(names map[string]string) way {
		return func(spec map[string]any) (map[string]any, error) {
			out := copyOf(spec)
			rename(out, names)
			return out, nil
		}
	}
	return site(content, from, to, move(spec), move(turned(spec)), status)
}

func site(content map[string]any, from, to string, up, down way, status map[string]string) error {
	there, back := up, down
	switch {
	case from == "v1alpha1" && to == "v1alpha2":
	case from == "v1alpha2" && to == "v1alpha1":
		there, back, status = down, up, turned(status)
	default:
		return fmt.Errorf("no way from %s to %s", from, to)
	}
	if s, ok := content["status"].(map[string]any); ok {
		rename(s, status)
	}
	return remembering(content, from, to, there, back)
}

// unitUp turns the spec of a v1alpha1 NodeUnit into v1alpha2.
func unitUp(spec map[string]any) (map[string]any, error) {
	out := copyOf(spec)
	rename(out, map[string]string{"setnode": "setNode"})
	if taints, ok := out["taints"]; ok {
		set := section(out, "setNode")
		set["taints"] = taints
		out["setNode"] = set
		delete(out, "taints")
	}
	if _, ok := out["autonomyLevel"]; !ok {
		out["autonomyLevel"] = "L3" // what the old version meant
	}
	return out, nil
}

// unitDown is the opposite; a level above L3 and a cluster inside the unit have no place in v1alpha1.
func unitDown(spec map[string]any) (map[string]any, error) {
	out := only(spec, "type", "unschedulable", "nodes", "selector", "setNode")
	set, ok := out["setNode"].(map[string]any)
	if taints, has := set["taints"]; ok && has {
		out["taints"] = taints
		delete(set, "taints")
		if len(set) == 0 {
			delete(out, "setNode")
		}
	}
	rename(out, map[string]string{"setNode": "setnode"})
	return out, nil
}

// NodePool converts between v1alpha1, v1beta1 and v1beta2 of apps.openyurt.io: each knows some fields that the others do not.
func NodePool(content map[string]any, from, to string) error {
	fields := map[string][]string{
		"v1alpha1": {"type", "selector", "labels", "annotations", "taints"},
		"v1beta1":  {"type", "hostNetwork", "labels", "annotations", "taints"},
		"v1beta2": {"type", "hostNetwork", "labels", "annotations", "taints", "interConnectivity", "enableLeaderElection",
			"leaderElectionStrategy", "leaderNodeLabelSelector", "leaderReplicas", "poolScopeMetadata"},
	}
	if fields[from] == nil || fields[to] == nil {
		return fmt.Errorf("no way from %s to %s", from, to)
	}
	cut := func(version string) way {
		return func(spec map[string]any) (map[string]any, error) { return only(spec, fields[version]...), nil }
	}
	return remembering(content, from, to, cut(to), cut(from))
}
