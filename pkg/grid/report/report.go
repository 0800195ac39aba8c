// Package report says how a set of workloads is doing in the words of its dialect: pure, sums in, status out.
// Rooms of pkg/grid may import it.
package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kedge-io/kedge/pkg/grid/object"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// Report is what the status of a set tells.
type Report struct {
	Object *unstructured.Unstructured
	Sum    placement.Summary
	// Problems and Held are units that cannot have a workload, or wait for an update, with the reason.
	Problems, Held map[string]string
	// Missing are pools that are listed and not there.
	Missing []string
}

// progress says how far the set is: whether it goes on, and why or why not.
func (r Report) progress() (bool, string, string) {
	for _, of := range []struct {
		reason string
		units  map[string]string
	}{{"UnitFailed", r.Problems}, {"Waiting", r.Held}} {
		if len(of.units) > 0 {
			unit := slices.Min(slices.Collect(maps.Keys(of.units)))
			return of.reason == "Waiting" && r.Sum.Waiting == "", of.reason, fmt.Sprintf("%s, first %s: %s", Units(len(of.units)), unit, of.units[unit])
		}
	}
	switch {
	case r.Sum.UpdatedUnits < r.Sum.Units:
		return true, "Updating", fmt.Sprintf("%d of %d units are updated", r.Sum.UpdatedUnits, r.Sum.Units)
	case r.Sum.Waiting != "":
		return true, "UnitNotReady", fmt.Sprintf("%d of %d units are ready, unit %s is not", r.Sum.ReadyUnits, r.Sum.Units, r.Sum.Waiting)
	}
	return true, "Complete", fmt.Sprintf("%d units are up to date and ready", r.Sum.Units)
}

// Grid is the status of a DeploymentGrid or StatefulSetGrid without its states.
func (r Report) Grid() map[string]any {
	g := r.Object.GetGeneration()
	going, reason, message := r.progress()
	available, why := r.Sum.ReadyUnits == r.Sum.Units, "AllUnitsReady"
	if !available {
		why = "UnitsNotReady"
	}
	return map[string]any{
		"observedGeneration": g, "units": r.Sum.Units, "readyUnits": r.Sum.ReadyUnits, "updatedUnits": r.Sum.UpdatedUnits,
		"replicas": r.Sum.Replicas, "readyReplicas": r.Sum.ReadyReplicas, "updatedReplicas": r.Sum.UpdatedReplicas, "availableReplicas": r.Sum.AvailableReplicas,
		"conditions": []any{
			object.Condition("Available", available, why, fmt.Sprintf("%d of %d units are ready", r.Sum.ReadyUnits, r.Sum.Units), g),
			object.Condition("Progressing", going, reason, message, g),
		},
	}
}

// AppSet is the status of the kinds of OpenYurt.
func (r Report) AppSet() map[string]any {
	g := r.Object.GetGeneration()
	_, reason, message := r.progress()
	found, which := len(r.Missing) == 0 && r.Sum.Units > 0, "all pools are there"
	switch {
	case len(r.Missing) > 0:
		which = "not there: " + Few(r.Missing)
	case r.Sum.Units == 0:
		which = "no pool is listed or selected"
	}
	return map[string]any{
		"observedGeneration": g, "totalWorkloads": r.Sum.Units, "readyWorkloads": r.Sum.ReadyUnits, "updatedWorkloads": r.Sum.UpdatedUnits,
		"conditions": []any{
			object.Condition("AppDispatched", len(r.Problems) == 0, reason, message, g),
			object.Condition("AppUpdated", r.Sum.UpdatedUnits == r.Sum.Units, reason, message, g),
			object.Condition("AppReady", r.Sum.ReadyUnits == r.Sum.Units, reason, message, g),
			object.Condition("PoolFound", found, "Pools", which, g),
		},
	}
}

// Few names the first of many.
func Few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", …"
}

// Units is a number of units in words.
func Units(n int) string {
	if n == 1 {
		return "1 unit"
	}
	return fmt.Sprintf("%d units", n)
}
