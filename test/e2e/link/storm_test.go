package link

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/crowd"
	"github.com/kedge-io/kedge/test/lab"
)

// TestCrowdReturns has as many nodes as KEDGE_CROWD says come back at once to a server that has restarted: none asks for a list.
func TestCrowdReturns(t *testing.T) {
	nodes, err := strconv.Atoi(os.Getenv("KEDGE_CROWD"))
	if err != nil {
		t.Skip("takes minutes: KEDGE_CROWD=50 is for fifty nodes")
	}
	l := lab.New(t)
	s := &scene{T: t, lab: l, farm: l.AddSiteBehindNAT("farm")}
	s.s1 = l.AddSite("shop").AddNode("s1", lab.Server("--disable-agent"))
	s.s1.Start()
	s.s1.AwaitReady()
	token := s.s1.Exec("cat", "/var/lib/kedge/server/agent-token")
	c, err := crowd.Start(t.Context(), s.farm.AddNode("c1", lab.Agent()), s.s1, token, nodes)
	if err != nil {
		t.Fatal(err)
	}
	l.Await("the nodes to join", 4*time.Minute, func() error { return c.Current("kubernetes") })
	before, err := c.Report("kubernetes")
	if err != nil {
		t.Fatal(err)
	}

	s.farm.Uplink().Cut()
	s.addServices("late", changes)
	l.Await("all nodes to be cut off", 2*time.Minute, c.CutOff)
	s.s1.Stop()
	s.s1.Start()
	s.s1.AwaitReady()
	begin := time.Now()
	s.farm.Uplink().Heal()
	l.Await("all nodes to be current", 3*time.Minute, func() error { return c.Current("late-99") })
	took := time.Since(begin)
	after, err := c.Report("late-99")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes and %d changes: current after %v, %d bytes a node in %d connections", nodes, changes, took.Round(time.Millisecond),
		(after.Sent+after.Received-before.Sent-before.Received)/int64(nodes), after.Connections-before.Connections)
	if after.Lists != before.Lists {
		t.Errorf("%d full lists", after.Lists-before.Lists)
	}
}
