package policy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// guarded is a namespace whose pods may send nothing and receive nothing.
func guarded() string {
	return np("x", "all", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
}

// early is a pod of x that connects to y/a from its first moment on.
const early = `
apiVersion: v1
kind: Pod
metadata: {name: early-%d, namespace: x, labels: {app: early}}
spec:
  nodeName: s1
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "kedge.local/probe:1", args: [try, "tcp %s:8080"]}
---
`

// TestFirstMoment starts pods under a policy: none has traffic before its policy, in either direction. Then the server and kedge on the
// agent go away: the policy stays, and the agent finds it again when it starts without its server.
func TestFirstMoment(t *testing.T) {
	s := newScene(t)
	s.s1.Apply(guarded())
	s.awaitGuarded()
	s.awaitCells(probeTimeout)

	const starts = 5
	target := s.pod("y", "a").Status.PodIP
	var all strings.Builder
	for i := range starts {
		fmt.Fprintf(&all, early, i, target)
	}
	knock := s.knock(target)
	s.s1.Apply(all.String())
	tried := 0
	for i := range starts {
		tried += s.triedInVain(fmt.Sprintf("early-%d", i))
	}
	inward, reached := knock()
	t.Logf("%d pods tried %d connections from their first moment on; %d were tried to their addresses", starts, tried, inward)
	if tried < starts*10 || inward < 100 || len(reached) > 0 {
		t.Errorf("%d and %d tries, reached: %v", tried, inward, reached)
	}

	s.lab.Await("rules are saved", settled, func() error {
		_, err := os.Stat(s.a1.HostPath("/var/lib/kedge/agent/network-policy.nft"))
		return err
	})
	s.s1.Stop()
	s.a1.Kill()
	s.awaitCells(probeTimeout)
	s.a1.Exec("nft", "delete", "table", "inet", "kedge-policy") // as a reboot does
	s.a1.Start()
	s.awaitCells(probeTimeout)
}

// awaitGuarded waits until both nodes have rules.
func (s *scene) awaitGuarded() {
	s.Helper()
	s.lab.Await("rules", time.Minute, func() error {
		_, err := s.s1.Run("nft", "list", "table", "inet", "kedge-policy")
		_, other := s.a1.Run("nft", "list", "table", "inet", "kedge-policy")
		return errors.Join(err, other)
	})
}

// awaitCells waits until exactly the cells of guarded answer.
func (s *scene) awaitCells(timeout time.Duration) {
	s.Helper()
	s.lab.Await("the policy is in force", settled, func() error {
		got, err := s.matrix(timeout, []at{{"tcp", 8080}, {"udp", 8080}}, podIPs)
		if wrong := compare(got, func(from, to peer, _ at) bool { return from.ns != "x" && to.ns != "x" }); err != nil || len(wrong) > 0 {
			return fmt.Errorf("%v, %w", wrong, err)
		}
		return nil
	})
}

func (s *scene) pod(ns, name string) *corev1.Pod {
	for i := range s.pods {
		if s.pods[i].Namespace == ns && s.pods[i].Name == name {
			return &s.pods[i]
		}
	}
	s.Fatalf("no pod %s/%s", ns, name)
	return nil
}

// triedInVain waits until a pod has said how often it tried, and checks that it never reached anything.
func (s *scene) triedInVain(name string) (tried int) {
	s.Helper()
	s.lab.Await(name+" has tried", 2*time.Minute, func() error {
		out, err := s.s1.TryKubectl("logs", "-n", "x", name)
		if err != nil {
			return err
		}
		reached := -1
		if _, err := fmt.Sscanf(out, "tried %d reached %d", &tried, &reached); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		if reached != 0 {
			s.Errorf("%s: %s", name, out)
		}
		return nil
	})
	return tried
}

// knock has y/b and z/a try all addresses that the next pods of s1 can get, over and over, until it is told to stop.
func (s *scene) knock(last string) (stop func() (tried int, reached []string)) {
	var targets []string
	used := map[string]bool{}
	for i := range s.pods {
		used[s.pods[i].Status.PodIP] = true
	}
	prefix := last[:strings.LastIndex(last, ".")+1]
	for i := 2; i < 30; i++ {
		if ip := prefix + fmt.Sprint(i); !used[ip] {
			targets = append(targets, "tcp "+ip+":8080")
		}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	tried, reached := 0, []string{}
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			results, err := s.ask(s.pod("z", "a"), 0, 100*time.Millisecond, targets)
			if err != nil {
				continue
			}
			tried += len(results)
			for i, ok := range results {
				if ok {
					reached = append(reached, targets[i])
				}
			}
		}
	}()
	return func() (int, []string) {
		close(quit)
		<-done
		return tried, reached
	}
}
