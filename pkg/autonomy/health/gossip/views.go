package gossip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// Limits of what a node remembers and says.
const (
	// watched is how many neighbours a node reports on, so that reports stay small in large units: those that follow it in the order of
	// names, in a circle. Each node has as many that report on it.
	watched = 5
	// maxKnown bounds the neighbours that are remembered.
	maxKnown = 512
	// forgetAfter is how long a neighbour that is gone is remembered.
	forgetAfter = 7 * 24 * time.Hour
)

// peer is one neighbour that this node has met.
type peer struct {
	address netip.AddrPort
	view    verdict.View // empty: gone from the gossip, and its machine not asked yet
	since   time.Time    // when it left the gossip
	ask     time.Time    // when its machine may be asked
}

// views are what this node knows of its neighbours, by name.
type views map[string]*peer

// joined notes that a neighbour answers.
func (v views) joined(name string, address netip.AddrPort) {
	if _, known := v[name]; !known && len(v) >= maxKnown {
		v.drop()
	}
	if alive, _ := v.counts(); alive == 0 { // back in company: what was thought of the others may be this node's own fault
		for _, p := range v {
			p.view, p.ask = "", time.Time{}
		}
	}
	v[name] = &peer{address: address, view: verdict.Alive}
}

// left notes that a neighbour said goodbye: its kedge was stopped, perhaps to start again at once, perhaps with its machine.
func (v views) left(name string, now time.Time) {
	v.lost(name, now)
	if p := v[name]; p != nil && p.view == "" {
		p.ask = now.Add(askEvery)
	}
}

// lost notes that a neighbour does not answer any more.
func (v views) lost(name string, now time.Time) {
	if p := v[name]; p != nil && p.view == verdict.Alive {
		p.view, p.since, p.ask = "", now, now
	}
}

// asked notes whether the machine of a lost neighbour answers.
func (v views) asked(name string, answers bool, now time.Time) {
	if p := v[name]; p != nil && p.view != verdict.Alive {
		p.view, p.ask = verdict.Gone, now.Add(askEvery)
		if answers {
			p.view = verdict.Mute
		}
	}
}

// drop forgets the neighbour that is gone for longest, or any.
func (v views) drop() {
	oldest := ""
	for name, p := range v {
		if oldest == "" || p.view != verdict.Alive && (v[oldest].view == verdict.Alive || p.since.Before(v[oldest].since)) {
			oldest = name
		}
	}
	delete(v, oldest)
}

// tidy forgets those that are gone for long.
func (v views) tidy(now time.Time) {
	for name, p := range v {
		if p.view != verdict.Alive && now.Sub(p.since) > forgetAfter {
			delete(v, name)
		}
	}
}

// missing returns those that are not alive, by name.
func (v views) missing() map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	for name, p := range v {
		if p.view != verdict.Alive {
			out[name] = p.address
		}
	}
	return out
}

// due returns those whose machine is to be asked, but for too many at once.
func (v views) due(now time.Time) map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	for name, p := range v {
		if p.view != verdict.Alive && !now.Before(p.ask) && len(out) < 4*watched {
			out[name] = p.address
		}
	}
	return out
}

// counts says how many are alive, and how many are not.
func (v views) counts() (alive, missing int) {
	missing = len(v.missing())
	return len(v) - missing, missing
}

// report is what the node self says. A node that nobody answers blames itself and says nothing.
func (v views) report(self string) note.Report {
	r := note.Report{}
	if alive, _ := v.counts(); alive == 0 {
		return r
	}
	for _, name := range v.watch(self) {
		if view := v[name].view; view != "" {
			r[name] = view
		}
	}
	return r
}

// watch returns the neighbours that a node reports on.
func (v views) watch(self string) []string {
	names := make([]string, 0, len(v))
	for name := range v {
		if name != self {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(before(a, self), before(b, self)), cmp.Compare(a, b))
	})
	return names[:min(watched, len(names))]
}

// before is 1 for names that come before self in the order, which makes them the last of the circle.
func before(name, self string) int {
	if name < self {
		return 1
	}
	return 0
}
