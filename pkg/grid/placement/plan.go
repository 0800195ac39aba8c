package placement

import (
	"fmt"
	"maps"
	"slices"
)

// Unit is what is known of the nodes of one value of the key.
type Unit struct {
	Nodes int // how many there are
	Ready int // how many of them are ready
}

// Live is a workload that exists.
type Live struct {
	Name, Unit string
	Hash       string // of the template that it was made of
	Foreign    string // whose it is, when not the set's
	// Edited says that its spec may have changed since the set wrote it.
	Edited bool
	// Complete says that all its pods are of its current spec and available.
	Complete                            bool
	Replicas, Ready, Updated, Available int64
}

// Plan is what to do for a set. Names of units are sorted.
type Plan struct {
	Create []string // units without a workload
	Update []string // units whose workload is of another template
	Verify []string // units whose workload somebody may have changed
	Delete []string // workloads of units that are gone
	// Held are units whose update waits, with the reason.
	Held map[string]string
	// Problems are units that cannot have a workload, with the reason.
	Problems map[string]string
}

// Wanted says whether a value of the key is a unit of the set.
func (s *Set) Wanted(unit string, u Unit) bool {
	if unit == "" {
		return false
	}
	if s.Only != nil {
		return s.Only[unit]
	}
	return u.Nodes > 0
}

// Wants lists the units of the set, sorted.
func (s *Set) Wants(units map[string]Unit) []string {
	if s.Only != nil {
		return slices.Sorted(maps.Keys(s.Only))
	}
	out := make([]string, 0, len(units))
	for name, u := range units {
		if s.Wanted(name, u) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Decide compares what a set wants with what lives, by workload name. some restricts it to these units: the cost follows the change;
// a set whose rollout is gated, and nil, look at all.
func Decide(s *Set, units map[string]Unit, live map[string]Live, some []string) Plan {
	p := Plan{Held: map[string]string{}, Problems: map[string]string{}}
	if some == nil || s.Rollout.Gated() {
		some = s.Wants(units)
		for _, l := range live {
			if l.Foreign == "" && (!s.Wanted(l.Unit, units[l.Unit]) || s.WorkloadName(l.Unit) != l.Name) {
				p.Delete = append(p.Delete, l.Name)
			}
		}
	}
	var outdated []string
	for _, unit := range some {
		name := s.WorkloadName(unit)
		l, exists := live[name]
		if !s.Wanted(unit, units[unit]) {
			if exists && l.Foreign == "" && l.Unit == unit {
				p.Delete = append(p.Delete, name)
			}
			continue
		}
		if bad := s.problem(unit); bad != "" {
			p.Problems[unit] = bad
			continue
		}
		t, _, _ := s.TemplateOf(unit) // problem has looked
		switch {
		case !exists:
			p.Create = append(p.Create, unit)
		case l.Foreign != "" || l.Unit != unit:
			p.Problems[unit] = fmt.Sprintf("%s %s exists and belongs to %s: remove or rename one of them", s.Kind, name, owner(l))
		case l.Hash != t.Hash:
			outdated = append(outdated, unit)
		case l.Edited:
			p.Verify = append(p.Verify, unit)
		}
	}
	slices.Sort(p.Delete)
	p.Delete = slices.Compact(p.Delete)
	p.Update = gate(s, units, live, outdated, p.Held)
	return p
}

func owner(l Live) string {
	if l.Foreign != "" {
		return l.Foreign
	}
	return "unit " + l.Unit
}

// gate chooses which of the outdated units are updated now. A unit that is not ready with its old template costs nothing; a unit
// without a ready node waits until it has one, and holds up nobody.
func gate(s *Set, units map[string]Unit, live map[string]Live, outdated []string, held map[string]string) []string {
	if !s.Rollout.Gated() {
		return outdated
	}
	var waiting []string
	busy, old, all := map[string]bool{}, map[string]bool{}, s.Wants(units)
	for _, unit := range outdated {
		old[unit] = true
	}
	for _, unit := range all {
		l, exists := live[s.WorkloadName(unit)]
		if exists && !l.Complete && units[unit].Ready > 0 && !old[unit] {
			busy[unit] = true
			waiting = append(waiting, unit)
		}
	}
	var out []string
	for _, unit := range outdated {
		broken := !live[s.WorkloadName(unit)].Complete
		switch {
		case s.Rollout.Paused:
			held[unit] = "the grid is paused"
		case units[unit].Ready == 0:
			held[unit] = "no node of the unit is ready"
		case len(busy) >= s.Rollout.budget(len(all)) && !(broken && len(waiting) == 0):
			held[unit] = "waits for unit " + first(waiting, out)
		default:
			busy[unit] = true
			out = append(out, unit)
		}
	}
	return out
}

func first(lists ...[]string) string {
	for _, l := range lists {
		if len(l) > 0 {
			return l[0]
		}
	}
	return ""
}

// Summary adds up the units of a set.
type Summary struct {
	Units, ReadyUnits, UpdatedUnits                             int64
	Replicas, ReadyReplicas, UpdatedReplicas, AvailableReplicas int64
	// Waiting is a unit that is not ready with its current template, or "".
	Waiting string
}

// Sum adds up what lives.
func Sum(s *Set, units map[string]Unit, live map[string]Live) Summary {
	var out Summary
	for _, unit := range s.Wants(units) {
		out.Units++
		l, exists := live[s.WorkloadName(unit)]
		t, _, err := s.TemplateOf(unit)
		if !exists || err != nil || l.Foreign != "" {
			continue
		}
		out.Replicas += l.Replicas
		out.ReadyReplicas += l.Ready
		out.UpdatedReplicas += l.Updated
		out.AvailableReplicas += l.Available
		current := l.Hash == t.Hash
		if current {
			out.UpdatedUnits++
		}
		switch {
		case l.Complete:
			out.ReadyUnits++
		case current && out.Waiting == "":
			out.Waiting = unit
		}
	}
	return out
}
