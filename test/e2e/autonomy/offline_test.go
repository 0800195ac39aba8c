package autonomy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/lab"
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
	token := s.s1.Exec("cat", "/var/lib/kedge/server/agent-token")
	s.a1 = s.farm.AddNode("a1", lab.Agent("--server", s.s1.URL(), "--token", token))
	s.a1.AddBusybox()
	s.a1.Start()
	s.s1.AwaitNodes("a1")
	return s
}

// local runs kedge kubectl --local on the agent's machine.
func (s *scene) local(args ...string) (string, error) {
	out, err := s.a1.Run(append([]string{kedge, "kubectl", "--local"}, args...)...)
	return strings.TrimSpace(out), err
}

// pods are the agent's pods as the agent sees them, by name.
func (s *scene) pods() (map[string]corev1.Pod, error) {
	out, err := s.local("get", "pods", "-n", "default", "-o", "json")
	if err != nil {
		return nil, err
	}
	return readPods(out)
}

func readPods(out string) (map[string]corev1.Pod, error) {
	var l corev1.PodList
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		return nil, err
	}
	byName := map[string]corev1.Pod{}
	for _, p := range l.Items {
		byName[p.Name] = p
	}
	return byName, nil
}

func ready(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// awaitPods waits until as many pods are ready as the agent sees it, each accepted by also.
func (s *scene) awaitPods(want int, within time.Duration, also func(corev1.Pod) error) map[string]corev1.Pod {
	s.Helper()
	var pods map[string]corev1.Pod
	s.lab.Await(fmt.Sprintf("%d ready pods on a1", want), within, func() error {
		var err error
		if pods, err = s.pods(); err != nil {
			return err
		}
		if len(pods) != want {
			return fmt.Errorf("%d pods: %v", len(pods), slices.Sorted(maps.Keys(pods)))
		}
		for _, p := range pods {
			if !ready(p) {
				return fmt.Errorf("%s is not ready: %+v", p.Name, p.Status.ContainerStatuses)
			}
			if err := also(p); err != nil {
				return err
			}
		}
		return nil
	})
	return pods
}

// podOf is the first pod of a Deployment: the node does not know Deployments.
func (s *scene) podOf(deployment string) string {
	s.Helper()
	pods, err := s.pods()
	if err != nil {
		s.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		if strings.HasPrefix(name, deployment+"-") {
			return name
		}
	}
	s.Fatalf("no pod of %s among %v", deployment, slices.Sorted(maps.Keys(pods)))
	return ""
}

func anyPod(corev1.Pod) error { return nil }

// works uses what the pods of the agent offer each other, and what the operator is offered.
func (s *scene) works() {
	s.Helper()
	check := func(what, want string, args ...string) {
		s.Helper()
		s.lab.Await(what, 90*time.Second, func() error {
			if got, err := s.local(args...); err != nil || !strings.Contains(got, want) {
				return fmt.Errorf("%q, %w", got, err)
			}
			return nil
		})
	}
	check("exec", "client-0", "exec", "client-0", "--", "hostname")
	check("a Service by its name", "page", "exec", "client-0", "--", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local")
	check("a Service by its address", "page", "exec", "client-0", "--", "sh", "-c", "wget -q -O - http://$WEB_SERVICE_HOST")
	check("the volume", "kept", "exec", "client-0", "--", "cat", "/data/file")
	check("a ConfigMap and a Secret", "blue hush", "exec", s.podOf("material"), "--", "sh", "-c", "echo $(cat /config/color) $(cat /secret/word)")
	check("a client with its own token", "configmap/settings", "exec", s.podOf("reader"), "--", kedge, "kubectl", "get", "configmaps", "-o", "name")
	check("logs", "hello", "logs", "client-0")
	if got, err := s.local("exec", s.podOf("reader"), "--", kedge, "kubectl", "get", "secrets", "-o", "name"); err == nil {
		s.Errorf("a client may read secrets without a role: %s", got)
	}
}

// unchanged compares pods with earlier ones.
func (s *scene) unchanged(before, now map[string]corev1.Pod, sameContainers bool) {
	s.Helper()
	for name, old := range before {
		p := now[name]
		if p.UID != old.UID || p.Status.PodIP != old.Status.PodIP {
			s.Errorf("%s was %s at %s and is %s at %s", name, old.UID, old.Status.PodIP, p.UID, p.Status.PodIP)
		}
		if sameContainers && p.Status.ContainerStatuses[0].ContainerID != old.Status.ContainerStatuses[0].ContainerID {
			s.Errorf("%s: its container was restarted", name)
		}
	}
}

// state is what the node API says about itself.
func (s *scene) state() (state struct {
	Server     string
	FullLists  int
	HeldWrites int
	Prepared   bool
}) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.a1.Exec("curl", "-s", "http://127.0.0.1:10550/kedge/state")), &state); err != nil {
		s.Fatal(err)
	}
	return state
}

func (s *scene) awaitState(want string) {
	s.Helper()
	s.lab.Await("the node API to see the server "+want, 2*time.Minute, func() error {
		if got := s.state(); got.Server != want {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
}

func TestNodeWorksWhileCutOff(t *testing.T) {
	s := newScene(t)
	s.s1.Apply(workload)
	before := s.awaitPods(workloadPods, 2*time.Minute, anyPod)
	if out, err := s.local("exec", "client-0", "--", "sh", "-c", "echo kept >/data/file"); err != nil {
		t.Fatal(out, err)
	}
	s.works()
	s.lab.Await("roles and keys on the node", time.Minute, func() error {
		if got := s.state(); !got.Prepared {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})

	t.Logf("connected: %+v, %s KiB of memory (PSS)", s.state(), s.a1.Exec("sh", "-c", "cat /proc/$(pidof -s kedge)/smaps_rollup | awk '/^Pss:/{print $2}'"))

	uplink := s.farm.Uplink()
	uplink.Cut()
	s.awaitState("down")
	s.works()
	s.a1.Kill()
	s.a1.Start()
	s.a1.AwaitKedge(2 * time.Minute)
	s.works()
	s.unchanged(before, s.awaitPods(workloadPods, time.Minute, anyPod), true)
	if out, err := s.local("delete", "pod", "client-0"); err == nil || !strings.Contains(err.Error(), "offline") {
		t.Errorf("a change while cut off: %q, %v", out, err)
	}

	s.a1.Reboot()
	begin := time.Now()
	s.a1.Start()
	after := s.awaitPods(workloadPods, 3*time.Minute, func(p corev1.Pod) error {
		if p.Status.ContainerStatuses[0].ContainerID == before[p.Name].Status.ContainerStatuses[0].ContainerID {
			return fmt.Errorf("%s still shows the container of before", p.Name)
		}
		return nil
	})
	t.Logf("offline reboot: %d pods ready %v after the start of kedge", len(after), time.Since(begin).Round(time.Millisecond))
	s.unchanged(before, after, false)
	s.works()
	s.reconnect(uplink, after)
}

// reconnect heals the link and compares what the server knows then.
func (s *scene) reconnect(uplink *lab.Link, local map[string]corev1.Pod) {
	s.Helper()
	lists, bytes := s.state().FullLists, uplink.Bytes()
	begin := time.Now()
	uplink.Heal()
	s.lab.Await("statuses on the server", time.Minute, func() error {
		remote, err := readPods(s.s1.Kubectl("get", "pods", "-n", "default", "--field-selector", "spec.nodeName=a1", "-o", "json"))
		if err != nil {
			return err
		}
		if len(remote) != len(local) {
			return fmt.Errorf("%d pods", len(remote))
		}
		for name, p := range local {
			r := remote[name]
			if !ready(r) || r.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
				return fmt.Errorf("%s: %+v", name, r.Status.ContainerStatuses)
			}
		}
		return nil
	})
	s.Logf("statuses right on the server %v after the link was back", time.Since(begin).Round(time.Millisecond))
	s.s1.AwaitNodes("s1", "a1")
	s.Logf("node ready on the server %v after the link was back, %d bytes over the link", time.Since(begin).Round(time.Millisecond), uplink.Bytes().Since(bytes).Total())
	s.awaitState("up")
	if now := s.state(); now.FullLists != lists || now.HeldWrites != 0 {
		s.Errorf("after the reconnect: %+v, %d full lists before", now, lists)
	}
	s.unchanged(local, s.awaitPods(workloadPods, time.Minute, anyPod), true)
	s.works()
}
