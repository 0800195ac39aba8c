package join

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// awaitExec waits until exec in a pod works, and returns how long that took.
func (s *scene) awaitExec(pod string) time.Duration {
	s.Helper()
	begin := time.Now()
	s.lab.Await("exec in "+pod, time.Minute, func() error {
		_, err := s.s1.Run("/opt/kedge/bin/kedge", "kubectl", "exec", pod, "--", "true")
		return err
	})
	return time.Since(begin)
}

// container is the ID of a pod's container and how often it was restarted.
func (s *scene) container(pod string) string {
	s.Helper()
	return s.s1.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

func TestNodeOutlivesItsServer(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.f1.Start()
	s.s1.AwaitNodes("f1")
	pod := s.pod("f1")
	before := s.container(pod)

	s.s1.Stop()
	s.s1.Start()
	s.s1.AwaitReady()
	t.Logf("exec %s after the server's restart was complete", s.awaitExec(pod).Round(time.Millisecond))

	s.s1.Kill()
	s.f1.Stop()
	s.f1.SetRole(lab.Agent()) // it knows its server, and needs no token
	s.f1.Start()
	s.lab.Await("a start without the server", time.Minute, func() error {
		if log := s.f1.Log(); !strings.Contains(log, "starting without the server") || !strings.Contains(log, "component=balancer") {
			return errors.New(log)
		}
		return nil
	})
	s.s1.Start()
	s.s1.AwaitReady()
	s.s1.AwaitNodes("f1")
	t.Logf("exec %s after a start without the server", s.awaitExec(pod).Round(time.Millisecond))

	s.farm.Uplink().Cut()
	if _, err := s.s1.Run("timeout", "3", "/opt/kedge/bin/kedge", "kubectl", "exec", pod, "--", "true"); err == nil {
		t.Error("exec over a link that is cut")
	}
	s.farm.Uplink().Heal()
	t.Logf("exec %s after a short cut", s.awaitExec(pod).Round(time.Millisecond))
	if after := s.container(pod); after != before {
		t.Errorf("container %s became %s", before, after)
	}
}

// readySince is the state of a node and since when it has it.
const readySince = "jsonpath={.status.conditions[?(@.type=='Ready')].status} {.status.conditions[?(@.type=='Ready')].lastTransitionTime}"

func TestIdleAgentIsQuiet(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	s := newScene(t)
	s.f1.Start()
	s.s1.AwaitNodes("f1")
	s.f1.AwaitReady()
	seen := s.s1.Kubectl("get", "node", "f1", "-o", readySince)
	settle, measure := 30*time.Second, time.Minute // a ping at least
	<-time.After(settle)
	log := len(s.f1.Log())
	before := s.farm.Uplink().Bytes()
	<-time.After(measure)
	used := s.farm.Uplink().Bytes().Since(before)
	minutes := measure.Minutes()
	t.Logf("an idle agent: %.0f bytes a minute up, %.0f down, in %.0f packets", float64(used.Sent)/minutes, float64(used.Received)/minutes,
		float64(used.PacketsSent+used.PacketsReceived)/minutes)
	// Twice the gate of make bench, which measures: this says when something broke.
	if perMinute := float64(used.Total()) / minutes; perMinute > 20_000 {
		t.Errorf("an idle agent uses %.0f bytes a minute", perMinute)
	}
	t.Logf("memory: %s", s.f1.Exec("sh", "-c", "grep -E 'VmRSS|RssAnon' /proc/$(pgrep -o kedge)/status | tr '\\n' ' '"))
	if now := s.s1.Kubectl("get", "node", "f1", "-o", readySince); now != seen {
		t.Errorf("the node was not ready all the time: since %s, and since %s", seen, now)
	}
	if lines := s.f1.Log()[log:]; lines != "" {
		t.Errorf("an idle agent logged:\n%s", lines)
	}

	// Its pings are its only signs of life: it is ready until they end, and lost soon after.
	begin := time.Now()
	s.farm.Uplink().Cut()
	s.lab.Await("f1 lost", 4*time.Minute, func() error {
		if ready := s.s1.Kubectl("get", "node", "f1", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"); ready == "True" {
			return errors.New("ready")
		}
		return nil
	})
	t.Logf("a node whose link is cut is lost after %s", time.Since(begin).Round(time.Second))
	s.farm.Uplink().Heal()
	begin = time.Now()
	s.s1.AwaitNodes("f1")
	t.Logf("it is ready %s after the link is back", time.Since(begin).Round(time.Second))
}

func TestRejoinAfterBeingOffForTooLong(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.f1.Start()
	s.s1.AwaitNodes("f1")
	pod := s.pod("f1")
	s.f1.Stop()
	// What is left of an expired certificate is its key.
	s.f1.Exec("sh", "-c", "rm /var/lib/kedge/agent/*.crt")
	s.f1.SetRole(lab.Agent())
	s.f1.Start()
	if err := s.f1.AwaitExit(time.Minute); err == nil {
		t.Error("without a token the node started")
	}
	s.wantLog(s.f1, "wants a token")
	s.f1.SetRole(lab.Agent("--token", s.token))
	s.f1.Start()
	s.s1.AwaitNodes("f1")
	s.awaitExec(pod)
}

// wantLog expects a line in the log of a node.
func (s *scene) wantLog(n *lab.Node, parts ...string) {
	s.Helper()
	log := n.Log()
	for _, p := range parts {
		if !strings.Contains(log, p) {
			s.Errorf("%q is not in the log of %s:\n%s", p, n.Name(), fmt.Sprint(log))
		}
	}
}

func TestNodeWhoseAddressChanges(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.a1.Start()
	s.s1.AwaitNodes("a1")
	pod := s.pod("a1")
	before := s.container(pod)
	s.a1.Exec("sh", "-c", "dev=$(ip -o route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'); gw=$(ip -o route show default | sed 's/.* via \\([^ ]*\\).*/\\1/'); "+
		"ip addr flush dev $dev; ip addr add 172.20.1.99/24 dev $dev; ip route add default via $gw")
	if err := s.a1.AwaitExit(2 * time.Minute); err == nil {
		t.Error("kedge ended without an error")
	}
	s.wantLog(s.a1, "and is 172.20.1.99 now")
	s.a1.Start() // as the service manager does
	s.lab.Await("the new address", time.Minute, func() error {
		got := s.s1.Kubectl("get", "node", "a1", "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
		if got != "172.20.1.99" {
			return fmt.Errorf("address %s", got)
		}
		return nil
	})
	s.awaitExec(pod)
	if after := s.container(pod); after != before {
		t.Errorf("container %s became %s", before, after)
	}
}
