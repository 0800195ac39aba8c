package link

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// Bounds of a reconnect, in bytes with IP headers both ways: two to three times of what was measured.
const (
	mostQuiet     = 30_000
	mostPerObject = 800
	changes       = 100
)

// services are what the node knows of the cluster's Services.
func (s *scene) services() (int, error) {
	out, err := s.a1.Run("curl", "-s", "http://127.0.0.1:10550/api/v1/services")
	if err != nil {
		return 0, err
	}
	var l struct{ Items []json.RawMessage }
	err = json.Unmarshal([]byte(out), &l)
	return len(l.Items), err
}

// addServices makes Services whose names begin with prefix.
func (s *scene) addServices(prefix string, n int) {
	s.Helper()
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s-%d}\nspec: {ports: [{port: 80}]}\n", prefix, i)
	}
	s.s1.Apply(all.String())
}

// connections is how many of the node to the server are open.
func (s *scene) connections() (n int) {
	s.Helper()
	for line := range strings.Lines(s.a1.Exec("cat", "/proc/net/tcp")) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[2], ":192B") && f[3] == "01" { // port 6443, established
			n++
		}
	}
	return n
}

// back waits until the node is current and the server sees it ready, and says what that took and cost.
func (s *scene) back(what string, services int, lists int, before lab.Traffic, since time.Time) (bytes uint64) {
	s.Helper()
	s.awaitState("up")
	s.lab.Await("the node to know all Services", 2*time.Minute, func() error {
		if n, err := s.services(); err != nil || n != services {
			return fmt.Errorf("%d of %d, %w", n, services, err)
		}
		return nil
	})
	current := time.Since(since)
	s.lab.Await("the tunnel and the connections of the node API", time.Minute, func() error {
		if n := s.connections(); n < 3 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	tunnel := time.Since(since)
	s.s1.AwaitNodes("a1")
	used := s.farm.Uplink().Bytes().Since(before)
	s.Logf("%s: current after %v, with a tunnel after %v; %d bytes up, %d down, %d packets; %d connections of the node API so far", what,
		current.Round(time.Millisecond), tunnel.Round(time.Millisecond), used.Sent, used.Received, used.PacketsSent+used.PacketsReceived, s.state().Traffic.Connections)
	if now := s.state(); now.FullLists != lists {
		s.Errorf("%s: %d full lists", what, now.FullLists-lists)
	}
	return used.Total()
}

func TestReconnectCostsADelta(t *testing.T) {
	s := newScene(t, nil, []string{"--tunnel-keepalive", "5"})
	known, err := s.services()
	if err != nil {
		t.Fatal(err)
	}
	lists := s.state().FullLists
	outage := func(change func()) (lab.Traffic, time.Time) {
		s.farm.Uplink().Cut()
		s.awaitState("down")
		change()
		before, begin := s.farm.Uplink().Bytes(), time.Now()
		s.farm.Uplink().Heal()
		return before, begin
	}

	before, begin := outage(func() {})
	if used := s.back("nothing changed", known, lists, before, begin); used > mostQuiet {
		t.Errorf("nothing changed, and %d bytes", used)
	}
	// A restart empties the server's memory of what happened; its datastore has it.
	before, begin = outage(func() {
		s.addServices("late", changes)
		s.s1.Stop()
		s.s1.Start()
		s.s1.AwaitReady()
	})
	if used := s.back("100 objects changed and the server restarted", known+changes, lists, before, begin); used > mostQuiet+changes*mostPerObject {
		t.Errorf("%d objects changed, a restart, and %d bytes", changes, used)
	}
}
