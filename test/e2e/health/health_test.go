package health

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

func TestNeighbours(t *testing.T) {
	s := newScene(t)
	a1, a2, a3 := s.agents[0], s.agents[1], s.agents[2]
	before := s.pods()

	t.Log("one agent is cut off from the server, and its neighbours reach it")
	s.server(a1, true)
	s.stands("CutOff", "a1")
	s.stays(before)
	s.server(a1, false)
	s.stands("Linked", "a1")
	s.stays(before)

	t.Log("the farm's line comes and goes, and then stays away")
	s.flap(before)
	s.farm.Uplink().Cut()
	s.stands("Lost", "a1", "a2", "a3")
	s.stays(before)
	s.farm.Uplink().Heal()
	s.stands("Linked", "a1", "a2", "a3")
	s.stays(before)

	s.powerCut(a2, a3)

	t.Log("units of two and of one: nobody can tell, nothing happens")
	s.s1.Kubectl("label", "node", "a3", "--overwrite", "apps.openyurt.io/nodepool=barn", "node-role.kubernetes.io/edge=")
	before = s.pods()
	a1.Exec("ip", "link", "set", "eth0", "down")
	s.server(a3, true)
	s.stands("Lost", "a1", "a3")
	s.stays(before)
}

// powerCut switches an agent off and on again, of which another one is a neighbour.
func (s *scene) powerCut(a2, a3 *lab.Node) {
	s.Helper()
	s.Log("one agent loses its power")
	a3.PowerOff()
	s.Logf("its pods run elsewhere after %s", s.moved(a3).Round(100*time.Millisecond))
	s.stands("Dead", "a3")
	if out := s.s1.Kubectl("get", "--raw", "/metrics"); !strings.Contains(out, `kedge_nodes{state="Dead"} 1`) {
		s.Error("the metric does not know of the dead node")
	}
	a3.PowerOn()
	a3.Start()
	s.stands("Linked", "a3")
	s.await("the end of its death", func() error {
		if n := s.node("a3"); len(n.Spec.Taints) != 0 || n.Annotations["nodeunhealth"] != "" {
			return fmt.Errorf("%v %v", n.Spec.Taints, n.Annotations)
		}
		return nil
	})
	s.await("company", func() error {
		if out := a2.Kedge("status"); !strings.Contains(out, "2 neighbours of unit farm answer, 0 do not") {
			return errors.New(out)
		}
		return nil
	})
	if log := s.s1.Log() + a2.Log(); strings.Contains(log, "level=ERROR") {
		s.Errorf("log:\n%s", log)
	}
}
