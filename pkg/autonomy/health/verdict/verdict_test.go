package verdict

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func rules() Rules {
	return Rules{LostAfter: 20 * time.Second, Standing: 5 * time.Second}
}

// node makes one that has been silent for some seconds, was asked after twelve, and says of its neighbours: name+ alive, name- gone, name~ gone lately,
// name? mute.
func node(name string, silence int, votes ...string) Node {
	n := Node{Name: name, Silence: time.Duration(silence) * time.Second, Unanswered: silence >= 12, Votes: map[string]Vote{}}
	for _, v := range votes {
		vote := map[byte]Vote{'+': {Alive, time.Hour}, '-': {Gone, time.Minute}, '~': {Gone, time.Second}, '?': {Mute, time.Hour}}[v[len(v)-1]]
		n.Votes[v[:len(v)-1]] = vote
	}
	return n
}

func with(n Node, change func(*Node)) Node {
	change(&n)
	return n
}

func server(name string) Node { return with(node(name, 3), func(n *Node) { n.Server = true }) }

type decision struct {
	nodes []Node
	want  string
}

// decisions are nodes and their states, with an exclamation mark where pods may be evicted.
func decisions() map[string]decision {
	patient := func(d time.Duration) func(*Node) { return func(n *Node) { n.Patience = d } }
	bound := func(n *Node) { n.Bound = true }
	condemned := func(n *Node) { n.Condemned = true }
	dead := func(n *Node) { n.WasDead = true }
	return map[string]decision{
		"all well":                {[]Node{server("s"), node("a", 5, "b+"), node("b", 9, "a+")}, "a=Linked b=Linked s=Linked"},
		"cut off":                 {[]Node{node("a", 99, "b+", "c+"), node("b", 2, "a+", "c+"), node("c", 2, "a+", "b+")}, "a=CutOff b=Linked c=Linked"},
		"powered off":             {[]Node{node("a", 13, "b+", "c+"), node("b", 2, "a-", "c+"), node("c", 2, "a-", "b+")}, "a=Dead! b=Linked c=Linked"},
		"may answer yet":          {[]Node{with(node("a", 22), func(n *Node) { n.Asked = true }), node("b", 2)}, "a=Linked b=Linked"},
		"gone, may answer yet":    {[]Node{with(node("a", 22), func(n *Node) { n.Asked = true }), node("b", 2, "a-", "c+"), node("c", 2, "a-", "b+")}, "a=Dead! b=Linked c=Linked"},
		"heard lately":            {[]Node{node("a", 11, "b+", "c+"), node("b", 2, "a-", "c+"), node("c", 2, "a-", "b+")}, "a=Linked b=Linked c=Linked"},
		"one vote is young":       {[]Node{node("a", 99), node("b", 2, "a-", "c+"), node("c", 2, "a~", "b+")}, "a=Lost b=Linked c=Linked"},
		"neighbours disagree":     {[]Node{node("a", 99), node("b", 2, "a-", "c+"), node("c", 2, "a+", "b+")}, "a=CutOff b=Linked c=Linked"},
		"kedge ended":             {[]Node{node("a", 99), node("b", 2, "a?", "c+"), node("c", 2, "a-", "b+")}, "a=CutOff b=Linked c=Linked"},
		"voter is lost itself":    {[]Node{node("a", 99, "b+", "c+"), node("b", 2, "a-", "c+"), node("c", 99, "a-", "b+")}, "a=Lost b=Linked c=CutOff"},
		"unit of two":             {[]Node{server("s"), node("a", 9999, "b+"), node("b", 1, "a-")}, "a=Lost b=Linked s=Linked"},
		"unit of one":             {[]Node{server("s"), node("a", 9999)}, "a=Lost s=Linked"},
		"half of a unit":          {[]Node{node("a", 99, "b+"), node("b", 99, "a+"), node("c", 1, "a-", "b-", "d+"), node("d", 1, "a-", "b-", "c+")}, "a=Lost b=Lost c=Linked d=Linked"},
		"less than half":          {[]Node{node("a", 99), node("b", 99), node("c", 1, "a-", "b-"), node("d", 1, "a-", "b-"), node("e", 1, "a-", "b-")}, "a=Dead! b=Dead! c=Linked d=Linked e=Linked"},
		"one gone, one cut off":   {[]Node{node("a", 99), node("b", 99, "a-"), node("c", 1, "a-", "b+"), node("d", 1, "a-", "b+")}, "a=Dead! b=CutOff c=Linked d=Linked"},
		"never met":               {[]Node{node("a", 99), node("b", 1, "c+"), node("c", 1, "b+")}, "a=Lost b=Linked c=Linked"},
		"another unit's word":     {[]Node{with(node("a", 99), func(n *Node) { n.Unit = "u" }), node("b", 1, "a-"), node("c", 1, "a-")}, "a=Lost b=Linked c=Linked"},
		"patience ends":           {[]Node{server("s"), with(node("a", 300), patient(5*time.Minute)), node("b", 1)}, "a=Expired! b=Linked s=Linked"},
		"patience lasts":          {[]Node{server("s"), with(node("a", 299), patient(5*time.Minute)), node("b", 1)}, "a=Lost b=Linked s=Linked"},
		"a neighbour is patience": {[]Node{with(node("a", 9999), patient(time.Minute)), node("b", 1, "a+")}, "a=CutOff b=Linked"},
		"a single node's end":     {[]Node{server("s"), with(node("a", 300), patient(5*time.Minute))}, "a=Expired! s=Linked"},
		"the server is alone":     {[]Node{server("s"), with(node("a", 300), patient(time.Minute)), with(node("b", 300), patient(time.Minute))}, "a=Lost b=Lost s=Linked"},
		"servers alone cannot vote": {[]Node{
			with(server("s"), func(n *Node) { n.Votes = node("", 0, "a-", "t+").Votes }),
			with(server("t"), func(n *Node) { n.Votes = node("", 0, "a-", "s+").Votes }),
			with(server("u"), func(n *Node) { n.Votes = node("", 0, "a-", "s+").Votes }), node("a", 99), node("b", 99)}, "a=Lost b=Lost s=Linked t=Linked u=Linked"},
		"bound":                    {[]Node{with(node("a", 13), bound), node("b", 2, "a-"), node("c", 2, "a-")}, "a=Dead b=Linked c=Linked"},
		"condemned":                {[]Node{server("s"), with(node("a", 20), condemned)}, "a=Dead! s=Linked"},
		"condemned and heard":      {[]Node{server("s"), with(node("a", 3), condemned)}, "a=Linked s=Linked"},
		"condemned and vouched":    {[]Node{with(node("a", 20), condemned), node("b", 1, "a+")}, "a=CutOff b=Linked"},
		"still dead":               {[]Node{with(node("a", 1), dead), node("b", 2), node("c", 2)}, "a=Dead! b=Linked c=Linked"},
		"dead and back on the LAN": {[]Node{with(node("a", 1), dead), node("b", 2, "a+"), node("c", 2, "a-")}, "a=CutOff b=Linked c=Linked"},
		"its own word is no vote":  {[]Node{node("a", 99, "a+"), node("b", 1), node("c", 1)}, "a=Lost b=Linked c=Linked"},
	}
}

func TestDecide(t *testing.T) {
	for name, tc := range decisions() {
		var got []string
		out := Decide(rules(), tc.nodes)
		for _, field := range strings.Fields(tc.want) {
			n, _, _ := strings.Cut(field, "=")
			v := out.Verdicts[n]
			mark := ""
			if v.Evict {
				mark = "!"
			}
			got = append(got, fmt.Sprintf("%s=%s%s", n, v.State, mark))
			if v.Why == "" {
				t.Errorf("%s: no reason for %s", name, n)
			}
		}
		if strings.Join(got, " ") != tc.want || len(got) != len(tc.nodes) {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
