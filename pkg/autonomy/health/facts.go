package health

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// What SuperEdge and OpenYurt write on nodes.
const (
	markUnhealthy = "nodeunhealth"
	markDuration  = "node.openyurt.io/autonomy-duration"
	markAutonomy  = "node.beta.openyurt.io/autonomy"
	markBinding   = "apps.openyurt.io/binding"
	markEdge      = "node-role.kubernetes.io/edge"
	markWorker    = "openyurt.io/is-edge-worker"
	markSuperEdge = "superedge.io/node-edge"
	markServer    = "node-role.kubernetes.io/control-plane"
)

// deadTaint is what Kubernetes wants to be told about a machine that is off: its pods go at once, and its volumes are detached.
func deadTaint() corev1.Taint {
	return corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "neighbours", Effect: corev1.TaintEffectNoExecute}
}

func hasDeadTaint(n *corev1.Node) bool { return slices.ContainsFunc(n.Spec.Taints, isDeadTaint) }

func isDeadTaint(t corev1.Taint) bool {
	return t.Key == corev1.TaintNodeOutOfService && t.Value == deadTaint().Value
}

// mark returns what an annotation, or else a label, of a node says.
func mark(n *corev1.Node, key string) string { return cmp.Or(n.Annotations[key], n.Labels[key]) }

func isYes(value string) bool { return value == "yes" || value == "true" }

// isEdge says whether a node is labelled as one of the edge.
func isEdge(n *corev1.Node) bool {
	_, role := n.Labels[markEdge]
	_, super := n.Labels[markSuperEdge]
	return role || super || n.Labels[markWorker] == "true"
}

// patience is how long a node is left alone when nobody knows how it is; 0 means for ever.
func patience(n *corev1.Node, s settings) time.Duration {
	var own time.Duration
	if text := mark(n, markDuration); text != "" && readPatience(text, &own) == nil {
		return own
	}
	if isYes(mark(n, markAutonomy)) {
		return 0
	}
	if isEdge(n) {
		return s.edge
	}
	return s.other
}

// memory is what the server remembers of a node.
type memory struct {
	renewed, beat metav1.MicroTime // as the node last wrote them; only their change counts, not its clock
	heard         time.Time        // when they last changed, by this clock
	uid           types.UID
	spoken        bool      // it has given a sign of life since this server looks
	asked         time.Time // when it was last asked
	asking        bool
	unanswered    bool
	failed        int // questions without an answer since it was heard
	tainted, dead bool
	report        string
	votes         map[string]ballot
	verdict       verdict.Verdict
	decided       time.Time // when verdict.State began
}

// ballot is a view and since when.
type ballot struct {
	view  verdict.View
	since time.Time
}

// see brings the memory up to date. A node that is seen for the first time counts as heard, unless it was lost before.
func (r *memory) see(n *corev1.Node, lease *coordinationv1.Lease, s settings, now time.Time) {
	if r.uid != n.UID {
		*r = memory{uid: n.UID}
	}
	renewed, beat := r.renewed, r.beat
	if lease != nil && lease.Spec.RenewTime != nil {
		renewed = *lease.Spec.RenewTime
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			beat = metav1.NewMicroTime(c.LastHeartbeatTime.Time)
		}
	}
	first := r.heard.IsZero()
	signOfLife := !first && (!renewed.Equal(&r.renewed) || !beat.Equal(&r.beat))
	r.renewed, r.beat = renewed, beat
	if first || signOfLife {
		r.heard = now
	}
	if link := condition(n, LinkUp); first && link != nil && link.Status == corev1.ConditionFalse {
		r.heard, r.failed = now.Add(-s.rules.LostAfter), enough
	}
	r.spoken = r.spoken || signOfLife
	tainted := hasDeadTaint(n)
	if tainted && !r.tainted {
		r.dead = true // found so by another server, or before a restart
	}
	r.tainted = tainted
	if signOfLife {
		r.dead, r.unanswered, r.failed = false, false, 0
	}
	r.listen(n, now)
}

// listen keeps what the node says of its neighbours, with the time since when.
func (r *memory) listen(n *corev1.Node, now time.Time) {
	text := n.Annotations[note.Neighbours]
	if text == r.report && r.votes != nil {
		return
	}
	report, err := note.ParseReport(text)
	if err != nil {
		report = nil // a report that cannot be read is none
	}
	votes := make(map[string]ballot, len(report))
	for about, view := range report {
		b := ballot{view, now}
		if before, ok := r.votes[about]; ok && before.view == view {
			b.since = before.since
		}
		votes[about] = b
	}
	r.report, r.votes = text, votes
}

// fact is the memory in the form that decisions are made on. A report from before this server looked is not a vote.
func (r *memory) fact(n *corev1.Node, s settings, now time.Time) verdict.Node {
	_, server := n.Labels[markServer]
	votes := make(map[string]verdict.Vote, len(r.votes))
	for about, b := range r.votes {
		if !r.spoken {
			break
		}
		votes[about] = verdict.Vote{View: b.view, For: now.Sub(b.since)}
	}
	silence := now.Sub(r.heard)
	return verdict.Node{
		Name: n.Name, Unit: s.unitOf(n.Labels), Silence: silence, Unanswered: r.unanswered, Asked: r.waiting(s, silence), Server: server, Patience: patience(n, s),
		Bound: isYes(mark(n, markBinding)), Condemned: isYes(mark(n, markUnhealthy)) && !r.tainted, WasDead: r.dead, Votes: votes,
	}
}

// maxSeeds is how many neighbours a node is told: the rest it learns from them.
const maxSeeds = 4

// places says to each node with neighbours where and with whom it gossips.
func places(s settings, nodes []*corev1.Node, dead map[string]bool) map[string]note.Place {
	out := map[string]note.Place{}
	if !s.gossip {
		return out
	}
	units := map[string][]*corev1.Node{}
	for _, n := range nodes {
		if address(n).IsValid() {
			unit := s.unitOf(n.Labels)
			units[unit] = append(units[unit], n)
		}
	}
	for unit, members := range units {
		for _, n := range members {
			if seeds := seedsFor(n, members, dead); len(seeds) > 0 {
				out[n.Name] = note.Place{Unit: unit, Port: s.port, Probe: int(s.probe.Milliseconds()), Near: unit == "", Seeds: seeds}
			}
		}
	}
	return out
}

// seedsFor chooses for a node: living ones first, then those with the most similar addresses, which may be in the same network.
func seedsFor(n *corev1.Node, members []*corev1.Node, dead map[string]bool) []string {
	own := address(n)
	others := slices.DeleteFunc(slices.Clone(members), func(m *corev1.Node) bool { return m.Name == n.Name })
	rank := func(m *corev1.Node) int {
		if dead[m.Name] {
			return 1000
		}
		return -similar(own, address(m))
	}
	slices.SortFunc(others, func(a, b *corev1.Node) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name)) })
	var seeds []string
	for _, m := range others[:min(maxSeeds, len(others))] {
		seeds = append(seeds, address(m).String())
	}
	slices.Sort(seeds)
	return seeds
}

// similar counts the leading bits that two addresses share.
func similar(a, b netip.Addr) int {
	x, y, n := a.As16(), b.As16(), 0
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return n + bits.LeadingZeros8(d)
		}
		n += 8
	}
	return n
}

// address is the first internal address of a node.
func address(n *corev1.Node) netip.Addr {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				return ip
			}
		}
	}
	return netip.Addr{}
}
