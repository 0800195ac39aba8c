package link

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/crowd"
	"github.com/kedge-io/kedge/test/lab"
)

// settle is how long the statuses of new pods may take to be told: those that are held back by the cut are not what a return costs.
const settle = 45 * time.Second

// TestLongCut cuts an agent off, or as many simulated nodes as KEDGE_CROWD says, for as long as KEDGE_CUT says; KEDGE_CHANGES objects change, and all
// return. It measures; that no list is asked for is what it checks.
func TestLongCut(t *testing.T) {
	cut, err := time.ParseDuration(os.Getenv("KEDGE_CUT"))
	if err != nil {
		t.Skip("takes as long as the cut: KEDGE_CUT=10m, and KEDGE_CHANGES=100, KEDGE_CROWD=50")
	}
	nodes, n := number(t, "KEDGE_CROWD", 0), number(t, "KEDGE_CHANGES", 0)
	s := newScene(t, nil, nil)
	if nodes == 0 {
		s.agentReturns(cut, n)
		return
	}
	s.crowdReturns(cut, n, nodes)
}

// agentReturns measures the agent alone: other nodes that are lost meanwhile would be changes that it is told. It is labelled as edge, or its pods would be
// evicted after some minutes.
func (s *scene) agentReturns(cut time.Duration, n int) {
	s.s1.Kubectl("label", "node", "a1", "node-role.kubernetes.io/edge=")
	<-time.After(settle)
	known, err := s.services()
	if err != nil {
		s.Fatal(err)
	}
	lists := s.state().FullLists
	s.farm.Uplink().Cut()
	end := time.After(cut)
	s.awaitState("down")
	if n > 0 {
		s.addServices("late", n)
	}
	<-end
	line, begin := s.farm.Uplink().Bytes(), time.Now()
	s.farm.Uplink().Heal()
	s.back(fmt.Sprintf("%d changes, %v", n, cut), known+n, lists, line, begin)
}

// crowdReturns measures as many nodes at once.
func (s *scene) crowdReturns(cut time.Duration, n, nodes int) {
	t := s.T
	field := s.lab.AddSiteBehindNAT("field")
	c, err := crowd.Start(t.Context(), field.AddNode("c1", lab.Agent()), s.s1, s.s1.AgentToken(), nodes)
	if err != nil {
		t.Fatal(err)
	}
	s.lab.Await("the crowd to join", 5*time.Minute, func() error { return c.Current("kubernetes") })
	before, err := c.Report("kubernetes")
	if err != nil {
		t.Fatal(err)
	}

	field.Uplink().Cut()
	end := time.After(cut)
	s.lab.Await("the crowd to be cut off", 2*time.Minute, c.CutOff)
	last := "kubernetes"
	if n > 0 {
		s.addServices("late", n)
		last = "late-0"
	}
	<-end
	line, begin := field.Uplink().Bytes(), time.Now()
	field.Uplink().Heal()
	s.lab.Await("the crowd to be current", 3*time.Minute, func() error { return c.Current(last) })
	took, used := time.Since(begin), field.Uplink().Bytes().Since(line)
	after, err := c.Report(last)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes, %d changes, %v: current after %v; %d bytes each, %d packets, %d connections of node APIs", nodes, n, cut, took.Round(time.Millisecond),
		used.Total()/uint64(nodes), (used.PacketsSent+used.PacketsReceived)/uint64(nodes), after.Connections-before.Connections)
	if after.Lists != before.Lists {
		t.Errorf("%d full lists of the crowd", after.Lists-before.Lists)
	}
}

// number is an environment variable, or what it is when that is not set.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
