package autonomy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/workload"
)

const kedge = "/opt/kedge/bin/kedge"

// scene is a server in a shop and an agent on a farm behind address translation, with pods on the agent.
type scene struct {
	*testing.T
	lab    *lab.Lab
	farm   *lab.Site
	s1, a1 *lab.Node
}

func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, farm: l.AddSiteBehindNAT("farm")}
	s.s1 = l.AddSite("shop").AddNode("s1", lab.Server())
	s.s1.Start()
	s.s1.AwaitReady()
	s.a1 = s.farm.AddAgent("a1", s.s1)
	s.a1.AddBusybox()
	s.a1.Start()
	s.s1.AwaitNodes("a1")
	return s
}

// local runs kedge kubectl --local on the agent's machine.
func (s *scene) local(args ...string) (string, error) {
	return s.a1.TryKubectl(append([]string{"--local"}, args...)...)
}

// pods are the agent's pods as the agent sees them, by name.
func (s *scene) pods() (map[string]corev1.Pod, error) {
	out, err := s.local("get", "pods", "-n", "default", "-o", "json")
	if err != nil {
		return nil, err
	}
	return workload.Read([]byte(out))
}

// awaitPods waits until all pods are ready as the agent sees it, in other containers than those of before, unless that is nil.
func (s *scene) awaitPods(within time.Duration, before map[string]corev1.Pod) map[string]corev1.Pod {
	s.Helper()
	var pods map[string]corev1.Pod
	s.lab.Await("ready pods on a1", within, func() error {
		var err error
		if pods, err = s.pods(); err != nil {
			return err
		}
		return workload.AllReady(pods, before)
	})
	return pods
}

// works uses what the pods of the agent offer each other, and what the operator is offered.
func (s *scene) works() {
	s.Helper()
	pods, err := s.pods()
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range workload.Checks(pods) {
		s.lab.Await(c.What, 90*time.Second, func() error {
			if got, err := s.local(c.Args...); err != nil || !strings.Contains(got, c.Want) {
				return fmt.Errorf("%q, %w", got, err)
			}
			return nil
		})
	}
	if got, err := s.local(workload.Forbidden(pods)...); err == nil {
		s.Errorf("a client may read secrets without a role: %s", got)
	}
}

// unchanged compares pods with earlier ones.
func (s *scene) unchanged(before, now map[string]corev1.Pod, sameContainers bool) {
	s.Helper()
	if err := workload.Same(before, now, sameContainers); err != nil {
		s.Error(err)
	}
}

// state is what the node API says about itself.
func (s *scene) state() lab.API {
	s.Helper()
	state, err := s.a1.API()
	if err != nil {
		s.Fatal(err)
	}
	return state
}

func (s *scene) awaitState(want string) {
	s.Helper()
	s.a1.AwaitAPI("the node API to see the server "+want, func(now lab.API) bool { return now.Server == want })
}

func TestNodeWorksWhileCutOff(t *testing.T) {
	s := newScene(t)
	s.s1.Apply(workload.Manifest("a1", kedge))
	before := s.awaitPods(2*time.Minute, nil)
	if out, err := s.local(workload.Write()...); err != nil {
		t.Fatal(out, err)
	}
	s.works()
	s.a1.AwaitAPI("roles and keys", func(now lab.API) bool { return now.Prepared })
	t.Logf("connected: %+v, %s KiB of memory (PSS)", s.state(), s.a1.Exec("sh", "-c", "cat /proc/$(pidof -s kedge)/smaps_rollup | awk '/^Pss:/{print $2}'"))

	uplink := s.farm.Uplink()
	uplink.Cut()
	s.awaitState("down")
	s.works()
	s.a1.Kill()
	s.a1.Start()
	s.a1.AwaitKedge(2 * time.Minute)
	s.works()
	s.unchanged(before, s.awaitPods(time.Minute, nil), true)
	if out, err := s.local("delete", "pod", "client-0"); err == nil || !strings.Contains(err.Error(), "kedge crictl stopp") {
		t.Errorf("a change while cut off: %q, %v", out, err)
	}

	s.restartPod(before)
	s.a1.Reboot()
	begin := time.Now()
	s.a1.Start()
	after := s.awaitPods(3*time.Minute, before)
	t.Logf("offline reboot: %d pods ready %v after the start of kedge", len(after), time.Since(begin).Round(time.Millisecond))
	s.unchanged(before, after, false)
	s.works()
	s.reconnect(uplink, after)
	s.torture(uplink, after)
}

// reconnect heals the link and compares what the server knows then.
func (s *scene) reconnect(uplink *lab.Link, local map[string]corev1.Pod) {
	s.Helper()
	lists, bytes := s.state().FullLists, uplink.Bytes()
	begin := time.Now()
	uplink.Heal()
	s.lab.Await("statuses on the server", time.Minute, func() error {
		remote, err := workload.Read([]byte(s.s1.Kubectl("get", "pods", "-n", "default", "--field-selector", "spec.nodeName=a1", "-o", "json")))
		if err != nil {
			return err
		}
		return errors.Join(workload.AllReady(remote, nil), workload.Same(local, remote, true))
	})
	s.Logf("statuses right on the server %v after the link was back", time.Since(begin).Round(time.Millisecond))
	s.s1.AwaitNodes("s1", "a1")
	s.Logf("node ready on the server %v after the link was back, %d bytes over the link", time.Since(begin).Round(time.Millisecond), uplink.Bytes().Since(bytes).Total())
	s.awaitState("up")
	if now := s.state(); now.FullLists != lists || now.HeldWrites != 0 {
		s.Errorf("after the reconnect: %+v, %d full lists before", now, lists)
	}
	s.unchanged(local, s.awaitPods(time.Minute, nil), true)
	s.works()
}
