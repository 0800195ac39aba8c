package link

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/bench/outage"
	"github.com/kedge-io/kedge/test/crowd"
	"github.com/kedge-io/kedge/test/lab"
)

const (
	// usualCrowd is how many nodes return, unless KEDGE_CROWD says otherwise; a machine of the lab has at most crowdMachine of them.
	usualCrowd, crowdMachine = 100, 100
	// mostReturn is how long they may take: a hundred nodes take three seconds where nothing else runs, 350 take 15.
	mostReturn = 100 * time.Second
	// mostMemory is what they may add to the memory of the server, in KiB: so much at all, and so much a node. It is 1.5 times of what was measured.
	mostMemory, mostMemoryNode = 30 << 10, 1200
	// mostNode is what one may send and receive, in bytes with IP headers: three times of what was measured.
	mostNode = 100_000
)

// TestCrowdReturns has many nodes come back at once to a server that has restarted, and objects that have changed: none asks for a list, all are
// current soon, and the server has memory for them.
func TestCrowdReturns(t *testing.T) {
	nodes := usualCrowd
	if n, err := strconv.Atoi(os.Getenv("KEDGE_CROWD")); err == nil {
		nodes = n
	}
	l := lab.New(t)
	s := &outage.Scene{
		Server: l.AddSite("shop").AddNode("s1", lab.Server("--disable-agent")),
		Farm:   l.AddSiteBehindNAT("farm"),
		Await: func(what string, done func() error) error {
			l.Await(what, 4*time.Minute, done)
			return nil
		},
		Wait: func(time.Duration) { // the server works on after its start, which is not to be measured; less long than the bench can wait
			select {
			case <-t.Context().Done():
			case <-time.After(5 * time.Second):
			}
		},
	}
	s.Server.Start()
	s.Server.AwaitReady()
	var crowds []*crowd.Crowd
	for left := nodes; left > 0; left -= crowdMachine {
		c, err := s.Join(t.Context(), s.Farm.AddNode("c"+strconv.Itoa(len(crowds)+1), lab.Agent()), min(left, crowdMachine))
		if err != nil {
			t.Fatal(err)
		}
		crowds = append(crowds, c)
	}
	f, err := s.Storm(crowds, "late", changes)
	if err != nil {
		t.Fatal(err)
	}
	added, each := f.Peak-f.Before, f.Bytes/uint64(nodes)
	t.Logf("%d nodes and %d changes: current after %v, %d bytes a node, %.0f MiB of memory added at most to %.0f MiB",
		nodes, changes, f.Took.Round(time.Millisecond), each, added/1024, f.Before/1024)
	if f.Lists != 0 {
		t.Errorf("%d full lists", f.Lists)
	}
	if f.Took > mostReturn {
		t.Errorf("it took %v", f.Took)
	}
	if added > float64(mostMemory+mostMemoryNode*nodes) {
		t.Errorf("%.0f MiB of memory", added/1024)
	}
	if each > mostNode {
		t.Errorf("%d bytes a node", each)
	}
}
