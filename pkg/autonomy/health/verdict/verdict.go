// Package verdict decides what becomes of nodes that the server does not hear any more: values in, values out.
// It is an inner room of autonomy: health imports it.
package verdict

import (
	"fmt"
	"time"
)

// View is what one node says of a neighbour.
type View string

// The views. A node says nothing of a neighbour that it has never met.
const (
	// Alive: it answers.
	Alive View = "alive"
	// Mute: kedge does not answer there, and the machine's kernel does: its containers may run.
	Mute View = "mute"
	// Gone: nothing answers there.
	Gone View = "gone"
)

// State is how a node stands with the server.
type State string

// The states of a node.
const (
	// Linked: the server hears from it.
	Linked State = "Linked"
	// Lost: the server does not hear from it, and nobody says why.
	Lost State = "Lost"
	// CutOff: the server does not hear from it, and a neighbour does.
	CutOff State = "CutOff"
	// Dead: neither the server nor its neighbours hear from it.
	Dead State = "Dead"
	// Expired: Lost for longer than its patience.
	Expired State = "Expired"
)

// MinVotes is how many neighbours must agree that a node is gone: one alone cannot tell the other's failure from its own.
const MinVotes = 2

// Rules are the times of a decision.
type Rules struct {
	// LostAfter is the silence after which a node counts as lost, and its own votes do not count any more.
	LostAfter time.Duration
	// Standing is how long a vote that a node is gone must have stood: after a break of the local network everybody votes so for
	// a moment.
	Standing time.Duration
}

// Vote is a view and how long the node has held it.
type Vote struct {
	View View
	For  time.Duration
}

// Node is what is known of one node.
type Node struct {
	Name string
	// Unit is whom its votes are about: the nodes of the same unit.
	Unit string
	// Silence is the time since its last sign of life, by the server's clock.
	Silence time.Duration
	// Unanswered says that the server has asked it since, and got no answer.
	Unanswered bool
	// Asked says that the server still waits for an answer that would show that it hears the node.
	Asked bool
	// Server says that it is a server's own node.
	Server bool
	// Patience is how long a lost node is left alone; 0 means for ever.
	Patience time.Duration
	// Bound says that its pods stay whatever happens.
	Bound bool
	// Condemned says that somebody else has declared it unhealthy.
	Condemned bool
	// WasDead says that it was found dead and has given no sign of life since.
	WasDead bool
	// Votes is what it says of its neighbours, by name.
	Votes map[string]Vote
}

// Verdict is the decision on one node.
type Verdict struct {
	State State
	// Evict says that its pods may be evicted.
	Evict bool
	// Why is a sentence for the operator.
	Why string
}

// Outcome is the decision on all nodes.
type Outcome struct {
	Verdicts map[string]Verdict
	// Alone says that the server hears from no node but servers: it is the one that is cut off.
	Alone bool
}

// Decide judges all nodes.
func Decide(r Rules, nodes []Node) Outcome {
	out := Outcome{Verdicts: make(map[string]Verdict, len(nodes)), Alone: alone(r, nodes)}
	units := map[string][]*Node{}
	for i := range nodes {
		units[nodes[i].Unit] = append(units[nodes[i].Unit], &nodes[i])
	}
	for _, unit := range units {
		tallies := count(r, unit)
		most := majority(r, unit, tallies)
		for _, n := range unit {
			v := judge(r, *n, tallies[n.Name], most, out.Alone)
			v.Evict = (v.State == Dead || v.State == Expired) && !n.Bound
			out.Verdicts[n.Name] = v
		}
	}
	return out
}

// alone: a server with a single node cannot tell, and takes it for the node's failure.
func alone(r Rules, nodes []Node) bool {
	others, lost := 0, 0
	for _, n := range nodes {
		if n.Server {
			continue
		}
		others++
		if n.Silence >= r.LostAfter || n.WasDead {
			lost++
		}
	}
	return others > 1 && lost == others
}

// tally is what the neighbours of a node say.
type tally struct {
	met              bool // somebody has known it
	alive, mute      int
	gone, goneLately int // goneLately has not stood long enough
}

// count collects the votes of a unit. Only nodes that the server hears have one.
func count(r Rules, unit []*Node) map[string]tally {
	tallies := map[string]tally{}
	for _, voter := range unit {
		fresh := hears(r, voter)
		for about, vote := range voter.Votes {
			if about == voter.Name {
				continue
			}
			t := tallies[about]
			t.met = true
			switch {
			case !fresh:
			case vote.View == Alive:
				t.alive++
			case vote.View == Mute:
				t.mute++
			case vote.View == Gone && vote.For >= r.Standing:
				t.gone++
			case vote.View == Gone:
				t.goneLately++
			}
			tallies[about] = t
		}
	}
	return tallies
}

// majority says whether the nodes that the server hears, and those that they vouch for, are most of their unit. Otherwise it may be
// that the others live on the far side of a break in the local network.
func majority(r Rules, unit []*Node, tallies map[string]tally) bool {
	members, here := 0, 0
	for _, n := range unit {
		t := tallies[n.Name]
		if !t.met && len(n.Votes) == 0 {
			continue // takes no part
		}
		members++
		if hears(r, n) || t.alive+t.mute > 0 {
			here++
		}
	}
	return 2*here > members
}

// hears says whether the server is in touch with a node.
func hears(r Rules, n *Node) bool { return n.Silence < r.LostAfter && !n.Unanswered && !n.WasDead }

// judge decides on one node.
func judge(r Rules, n Node, t tally, most, alone bool) Verdict {
	quiet := n.Silence.Round(time.Second)
	switch {
	case n.WasDead && t.alive+t.mute == 0:
		return Verdict{State: Dead, Why: "its neighbours found it dead, and it has not been heard of since"}
	case !n.WasDead && n.Silence >= r.LostAfter && n.Condemned && t.alive == 0:
		return Verdict{State: Dead, Why: fmt.Sprintf("not heard for %s, and declared unhealthy", quiet)}
	case !n.WasDead && n.Unanswered && !alone && most && t.gone >= MinVotes && t.alive+t.mute+t.goneLately == 0:
		return Verdict{State: Dead, Why: fmt.Sprintf("it does not answer, and is gone for all %d neighbours that can be asked", t.gone)}
	case (n.Silence < r.LostAfter || n.Asked) && !n.WasDead:
		return Verdict{State: Linked, Why: "the server hears from the node"}
	case t.alive > 0:
		return Verdict{State: CutOff, Why: fmt.Sprintf("the server does not hear it, and %d of its neighbours do", t.alive)}
	case t.mute > 0:
		return Verdict{State: CutOff, Why: "kedge does not answer there, and the machine does"}
	case n.Patience > 0 && n.Silence >= n.Patience && !alone:
		return Verdict{State: Expired, Why: fmt.Sprintf("not heard for longer than %s, and no neighbour knows", n.Patience)}
	case alone:
		return Verdict{State: Lost, Why: "the server hears from no node at all"}
	}
	return Verdict{State: Lost, Why: "the server does not hear it, and no neighbours can decide"}
}
