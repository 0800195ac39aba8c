package servers

import (
	"fmt"
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
	s.s1 = l.AddSite("one").AddNode("s1", lab.Server("--cluster-init", "--token", token))
	s.s2 = l.AddSite("two").AddNode("s2", lab.Server())
	s.s3 = l.AddSite("three").AddNode("s3", lab.Server("--disable-agent", "--server", s.s1.URL(), "--token", token))
	s.a1 = l.AddSiteBehindNAT("farm").AddNode("a1", lab.Agent("--server", s.s1.URL(), "--token", token))
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
		out, err := through.Run("/opt/kedge/bin/kedge", "kubectl", "exec", pod, "--", "hostname")
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

func TestOneOfThreeServersDies(t *testing.T) {
	s := newScene(t)
	s.s1.Start()
	s.s1.AwaitReady()
	s.refused(s.s2, "refuses the token", "--token", "wrong")
	s.refused(s.s2, "server token", "--token", s.s1.Exec("cat", "/var/lib/kedge/server/agent-token"))
	s.refused(s.s2, "--cluster-cidr", "--token", token, "--cluster-cidr", "10.99.0.0/16")

	s.s2.SetRole(lab.Server("--server", s.s1.URL(), "--token", token))
	begin := time.Now()
	s.s2.Start()
	s.s3.Start()
	s.a1.Start()
	s.s2.AwaitReady()
	s.s3.AwaitReady()
	t.Logf("two servers joined after %s", time.Since(begin).Round(time.Millisecond))
	s.members(s.s3, "s1, s2, s3")
	s.s1.AwaitNodes("s1", "s2", "a1")
	s.web(s.s1, 1)
	pod := s.s1.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
	for _, through := range []*lab.Node{s.s1, s.s2, s.s3} {
		s.reaches(through, pod, "a1")
	}
	for _, node := range []string{"s1", "s2"} { // server nodes are reached by the other servers too
		s.lab.Await("kubelet of "+node+" through s3", time.Minute, func() error {
			_, err := s.s3.Run("/opt/kedge/bin/kedge", "kubectl", "get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz")
			return err
		})
	}

	s.s1.Kill()
	begin = time.Now()
	s.lab.Await("a write through s2", time.Minute, func() error {
		_, err := s.s2.Run("/opt/kedge/bin/kedge", "kubectl", "create", "configmap", "written-"+fmt.Sprint(time.Now().UnixNano()))
		return err
	})
	t.Logf("written through another server %s after the death of the first", time.Since(begin).Round(time.Millisecond))
	s.reaches(s.s2, pod, "a1")
	s.web(s.s3, 2)
	t.Logf("scaled %s after the death of the first", time.Since(begin).Round(time.Millisecond))
	if got := s.s3.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); got != "0" {
		t.Errorf("the pod was restarted: %s", got)
	}

	s.s1.Start()
	s.s1.AwaitReady()
	s.members(s.s1, "s1, s2, s3")
	s.reaches(s.s1, pod, "a1")
	for _, n := range []*lab.Node{s.s1, s.s2, s.s3} {
		if strings.Contains(n.Log(), "level=ERROR") {
			t.Errorf("log of %s:\n%s", n.Name(), n.Log())
		}
	}
}
