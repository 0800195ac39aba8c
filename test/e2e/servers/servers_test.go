package servers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

const token = "the-secret-of-the-servers"

// scene is three servers in three sites, the last one without a node, and an agent behind address translation.
type scene struct {
	*testing.T
	lab            *lab.Lab
	s1, s2, s3, a1 *lab.Node
}

func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l}
	s.s1 = l.AddSite("one").AddNode("s1", lab.Server("--cluster-init", "--token", token, lease))
	s.s2 = l.AddSite("two").AddNode("s2", lab.Server())
	s.s3 = l.AddSite("three").AddNode("s3", lab.Server("--disable-agent", "--server", s.s1.URL(), "--token", token, lease))
	s.a1 = l.AddSiteBehindNAT("farm").AddNode("a1", lab.Agent("--server", s.s1.URL(), "--token", token, "--tunnel-keepalive=10"))
	for _, n := range []*lab.Node{s.s1, s.s2, s.a1} {
		n.AddBusybox()
	}
	return s
}

// refused starts a server that may not join and looks for the reason.
func (s *scene) refused(n *lab.Node, reason string, args ...string) {
	s.Helper()
	n.SetRole(lab.Server(append([]string{"--server", s.s1.URL()}, args...)...))
	n.Start()
	if err := n.AwaitExit(time.Minute); err == nil {
		s.Errorf("%s ended without an error", n.Name())
	}
	if !strings.Contains(n.Log(), reason) {
		s.Errorf("%q is missing in the log of %s:\n%s", reason, n.Name(), n.Log())
	}
}

// web runs some pods on the agent.
func (s *scene) web(through *lab.Node, replicas int) {
	s.Helper()
	through.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sleep, "1000000"]
`, replicas))
	through.AwaitPods("default", "app=web", replicas)
}

// reaches runs a program in a pod through a server.
func (s *scene) reaches(through *lab.Node, pod, node string) {
	s.Helper()
	begin := time.Now()
	s.lab.Await(fmt.Sprintf("exec in %s through %s", pod, through.Name()), time.Minute, func() error {
		out, err := through.TryKubectl("exec", pod, "--", "hostname")
		if err == nil && strings.TrimSpace(out) != pod {
			err = fmt.Errorf("the answer is %q", out)
		}
		return err
	})
	s.Logf("exec on %s through %s after %s", node, through.Name(), time.Since(begin).Round(time.Millisecond))
}

// members are the nodes of the datastore, as kedge status tells.
func (s *scene) members(n *lab.Node, want string) {
	s.Helper()
	s.lab.Await("datastore of "+want, time.Minute, func() error {
		r, err := n.Status()
		if err != nil {
			return err
		}
		for _, c := range r.Components {
			if c.Name == "datastore" && c.Note == "servers: "+want && c.Reason == "" {
				return nil
			}
		}
		return fmt.Errorf("status %+v", r.Components)
	})
}

// lease makes the controllers move after 12 s of silence instead of 30, and lets pass a change of etcd's leader even so.
const lease = "--kube-controller-manager-arg=leader-elect-lease-duration=12s"

// writes waits until a server takes writes.
func (s *scene) writes(through *lab.Node) {
	s.Helper()
	begin := time.Now()
	s.lab.Await("a write through "+through.Name(), time.Minute, func() error {
		_, err := through.TryKubectl("create", "configmap", "--request-timeout=4s", "written-"+fmt.Sprint(time.Now().UnixNano()))
		return err
	})
	s.Logf("written through %s after %s", through.Name(), time.Since(begin).Round(time.Millisecond))
}

// leader is who runs the controllers, as a server tells.
func (s *scene) leader(n *lab.Node) string {
	r, err := n.Status()
	if err != nil {
		return err.Error()
	}
	for _, c := range r.Components {
		if c.Name != "controllers" {
			continue
		}
		if c.Note == "this server leads" {
			return n.Name()
		}
		return strings.TrimSuffix(c.Note, " leads")
	}
	return "nobody"
}

func (s *scene) token(n *lab.Node) string { return n.Exec("cat", "/var/lib/kedge/server/token") }

func TestThreeServers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.join()
	s.web(s.s1, 1)
	pod := s.s1.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
	for _, through := range []*lab.Node{s.s1, s.s2, s.s3} {
		s.reaches(through, pod, "a1")
	}
	for _, node := range []string{"s1", "s2"} { // server nodes are reached by the other servers too
		s.lab.Await("kubelet of "+node+" through s3", time.Minute, func() error {
			_, err := s.s3.TryKubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz")
			return err
		})
	}
	s.paused(pod)
	s.dies(pod)
	s.removed()
	s.reaches(s.s2, pod, "a1")
	if got := s.s1.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); got != "0" {
		t.Errorf("the pod was restarted: %s", got)
	}
	for _, n := range []*lab.Node{s.s1, s.s2, s.s3} {
		if strings.Contains(n.Log(), "level=ERROR") {
			t.Errorf("log of %s:\n%s", n.Name(), n.Log())
		}
	}
}

// join starts all machines, and some that may not join.
func (s *scene) join() {
	s.Helper()
	s.s1.Start()
	s.s1.AwaitReady()
	s.refused(s.s2, "refuses the token", "--token", "wrong")
	s.refused(s.s2, "server token", "--token", s.s1.AgentToken())
	s.refused(s.s2, "--cluster-cidr", "--token", token, "--cluster-cidr", "10.99.0.0/16")
	s.s2.SetRole(lab.Server("--server", s.s1.URL(), "--token", token, lease))
	begin := time.Now()
	s.s2.Start()
	s.s3.Start()
	s.a1.Start()
	s.s2.AwaitReady()
	s.s3.AwaitReady()
	s.Logf("two servers joined after %s", time.Since(begin).Round(time.Millisecond))
	s.members(s.s3, "s1, s2, s3")
	s.s1.AwaitNodes("s1", "s2", "a1")
}

// paused stops the process that leads for longer than its lease.
func (s *scene) paused(pod string) {
	s.Helper()
	if got := s.leader(s.s3); got != "s1" {
		s.Fatalf("%s leads", got)
	}
	s.s1.Signal("STOP")
	goOn := func() error {
		_, err := s.s1.Run("sh", "-c", "kill -CONT $(pgrep -o kedge)")
		return err
	}
	s.Cleanup(func() { _ = goOn() }) // or its logs cannot be kept
	begin := time.Now()
	s.writes(s.s2)
	s.reaches(s.s2, pod, "a1")
	s.web(s.s3, 2)
	s.Logf("scaled %s after the leader was paused", time.Since(begin).Round(time.Millisecond))
	if err := goOn(); err != nil {
		s.Fatal(err)
	}
	begin = time.Now()
	follows := func() error { // which of the others leads may change on a busy machine
		if got, next := s.leader(s.s1), s.leader(s.s2); got != next || got != "s2" && got != "s3" {
			return fmt.Errorf("%s leads, it says, and another server %s", got, next)
		}
		return nil
	}
	s.lab.Await("the paused server to follow", time.Minute, follows)
	s.Logf("it follows %s after it goes on", time.Since(begin).Round(time.Millisecond))
	s.members(s.s1, "s1, s2, s3")
	s.reaches(s.s1, pod, "a1")
	s.s1.AwaitReady()
	s.web(s.s1, 1)
	if err := follows(); err != nil || !strings.Contains(s.s1.Log(), "lost the lead") {
		s.Errorf("%v, and s1 says:\n%s", err, s.s1.Log())
	}
}

// dies kills the server that leads. While it is dead the token is rotated on another one.
func (s *scene) dies(pod string) {
	s.Helper()
	dead := s.s2
	if s.leader(s.s1) == "s3" {
		dead = s.s3
	}
	dead.Kill()
	begin := time.Now()
	s.writes(s.s1)
	s.reaches(s.s1, pod, "a1")
	rotated := s.s1.Kedge("token", "rotate")
	s.web(s.s1, 2)
	s.Logf("scaled %s after the death of %s, which led", time.Since(begin).Round(time.Millisecond), dead.Name())
	s.lab.Await("another server to lead", time.Minute, func() error {
		if got := s.leader(s.s1); got == dead.Name() || !slices.Contains([]string{"s1", "s2", "s3"}, got) {
			return fmt.Errorf("%s leads", got)
		}
		return nil
	})
	dead.Start()
	dead.AwaitReady()
	s.members(dead, "s1, s2, s3")
	s.reaches(dead, pod, "a1")
	for _, n := range []*lab.Node{s.s1, s.s2, s.s3} {
		s.lab.Await("the new token on "+n.Name(), time.Minute, func() error {
			if got := s.token(n); got != rotated || strings.Contains(got, token) {
				return fmt.Errorf("%s, not %s", got, rotated)
			}
			return nil
		})
	}
}

// removed takes a server out of the cluster that is switched off, and lets it join again.
func (s *scene) removed() {
	s.Helper()
	s.s2.PowerOff()
	s.writes(s.s1)
	s.s1.Kubectl("delete", "node", "s2")
	s.members(s.s1, "s1, s3")
	s.writes(s.s3)
	s.s2.PowerOn()
	s.s2.Start()
	if err := s.s2.AwaitExit(time.Minute); err == nil || !strings.Contains(s.s2.Log(), "was removed from the cluster") {
		s.Errorf("the removed server ended with %v and says:\n%s", err, s.s2.Log())
	}
	s.s2.Exec("rm", "-r", "/var/lib/kedge/server/db/etcd")
	s.s2.SetRole(lab.Server("--server", s.s1.URL(), "--token", s.token(s.s1), lease))
	s.s2.Start()
	s.s2.AwaitReady()
	s.members(s.s2, "s1, s2, s3")
}
