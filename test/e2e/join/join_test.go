package join

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// scene is a server in a shop, an agent beside it, and one on a farm behind address translation.
type scene struct {
	*testing.T
	lab        *lab.Lab
	shop, farm *lab.Site
	s1, a1, f1 *lab.Node
	token      string
}

// newScene starts the server; the agents are switched on and kedge is not started on them.
func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, shop: l.AddSite("shop"), farm: l.AddSiteBehindNAT("farm")}
	s.s1 = s.shop.AddNode("s1", lab.Server())
	s.s1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	s.token = s.s1.Exec("cat", "/var/lib/kedge/server/agent-token")
	s.a1 = s.agent(s.shop, "a1")
	s.f1 = s.agent(s.farm, "f1")
	return s
}

// agent adds a machine that is told where the server is as users of the family do it.
func (s *scene) agent(site *lab.Site, name string) *lab.Node {
	s.Helper()
	role := lab.Agent()
	role.Env = []string{"K3S_URL=" + s.s1.URL(), "K3S_TOKEN=" + s.token}
	n := site.AddNode(name, role)
	n.AddBusybox()
	return n
}

// pod runs a busybox on a node and waits until it is ready.
func (s *scene) pod(node string) string {
	s.Helper()
	name := "on-" + node
	s.s1.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: kedge.local/busybox:1
    command: [sh, -c, "echo hello from %[2]s; mkdir -p /www; echo page of %[2]s >/www/index.html; httpd -f -p 8080 -h /www"]
`, name, node))
	s.s1.AwaitPods("default", "app="+name, 1)
	return name
}

func TestAgentsJoinFromAnywhere(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	begin := time.Now()
	s.a1.Start()
	s.f1.Start()
	s.s1.AwaitNodes("s1", "a1", "f1")
	t.Logf("two agents joined and ready after %s", time.Since(begin).Round(time.Millisecond))
	for _, node := range []string{"s1", "a1", "f1"} {
		s.reaches(node)
	}
	if log := s.f1.Log(); strings.Contains(log, "level=ERROR") {
		t.Errorf("log of f1:\n%s", log)
	}
}

// reaches uses a pod on a node in every way that leads through its kubelet.
func (s *scene) reaches(node string) {
	s.Helper()
	pod := s.pod(node)
	if got := s.s1.Kubectl("logs", pod); got != "hello from "+node {
		s.Errorf("logs of %s: %q", pod, got)
	}
	begin := time.Now()
	if got := s.s1.Kubectl("exec", pod, "--", "hostname"); got != pod {
		s.Errorf("exec in %s: %q", pod, got)
	}
	s.Logf("exec in %s took %s", pod, time.Since(begin).Round(time.Millisecond))
	s.s1.Exec("sh", "-c", "echo content >/tmp/file")
	s.s1.Kubectl("cp", "/tmp/file", pod+":/tmp/file")
	if got := s.s1.Kubectl("exec", pod, "--", "cat", "/tmp/file"); got != "content" {
		s.Errorf("cp to %s: %q", pod, got)
	}
	forward := "rm -f /tmp/forward; kedge kubectl port-forward pod/" + pod + " 18080:8080 >/tmp/forward 2>&1 & pid=$!; " +
		"for i in 1 2 3 4 5 6 7 8 9 10; do grep -q Forwarding /tmp/forward && break; sleep 0.5; done; " +
		"curl -s --retry 5 --retry-connrefused http://127.0.0.1:18080/; kill $pid"
	if got := s.s1.Exec("sh", "-c", "PATH=$PATH:/opt/kedge/bin; "+forward); got != "page of "+node {
		s.Errorf("port-forward to %s: %q", pod, got)
	}
	s.attach(node)
	if got := s.s1.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz"); got != "ok" {
		s.Errorf("proxy to node %s: %q", node, got)
	}
}

// attach talks to the main program of a pod on a node.
func (s *scene) attach(node string) {
	s.Helper()
	name := "talks-on-" + node
	s.s1.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  nodeName: %[2]s
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: kedge.local/busybox:1
    stdin: true
    stdinOnce: true
    command: [sh, -c, "while read line; do echo heard $line; done"]
`, name, node))
	s.s1.AwaitPods("default", "app="+name, 1)
	out, err := s.s1.RunInput("you\n", "timeout", "60", "/opt/kedge/bin/kedge", "kubectl", "attach", "-i", "-q", name)
	if err != nil || !strings.Contains(out, "heard you") {
		s.Errorf("attach to %s: %q, %v", name, out, err)
	}
}
