package health

import (
	"os"
	"strings"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// flapTime is how long the line of the farm flaps; the environment variable KEDGE_FLAP sets another time, as 10m.
const flapTime = time.Minute

// flap cuts and heals the links of all agents every five seconds: nothing happens to the pods, no container is started again, and the agents are back
// by themselves when it ends.
func (s *scene) flap(before map[string]string) {
	s.Helper()
	length := flapTime
	if text := os.Getenv("KEDGE_FLAP"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			s.Fatalf("KEDGE_FLAP: %v", err)
		}
	}
	memory := s.memories()
	flaps, states := 0, strings.Count(s.s1.Log(), "node has changed its state")
	for end := time.Now().Add(length); time.Now().Before(end); flaps++ {
		s.farm.Uplink().Cut()
		s.stays(before)
		s.farm.Uplink().Heal()
		s.stays(before)
	}
	end := time.Now()
	s.stands("Linked", "a1", "a2", "a3")
	s.stays(before)
	s.Logf("%d cuts: linked %v after the last, nodes changed their state %d times, KiB of memory (PSS) before %s, after %s",
		flaps, time.Since(end).Round(time.Millisecond), strings.Count(s.s1.Log(), "node has changed its state")-states, memory, s.memories())
	for _, a := range s.agents {
		if log := a.Log(); strings.Contains(log, "level=ERROR") || !a.Running() {
			s.Errorf("%s runs %v, log:\n%s", a.Name(), a.Running(), log)
		}
	}
}

// memories is the memory of the agents' processes.
func (s *scene) memories() string {
	s.Helper()
	var out []string
	for _, a := range append([]*lab.Node{s.s1}, s.agents...) {
		out = append(out, a.Name()+" "+a.Exec("sh", "-c", "cat /proc/$(pidof -s kedge)/smaps_rollup | awk '/^Pss:/{print $2}'"))
	}
	return strings.Join(out, ", ")
}
