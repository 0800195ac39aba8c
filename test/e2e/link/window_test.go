package link

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// lists are the requests for whole resources in a debug log, with how often each was made.
func lists(log string) map[string]int {
	request := regexp.MustCompile(`msg="the server answers".* method=GET path="?([^ "]+)`)
	out := map[string]int{}
	for line := range strings.Lines(log) {
		if m := request.FindStringSubmatch(line); m != nil && strings.Contains(line, "agent=kedge-node-api") && strings.Contains(line, "code=200") && !strings.Contains(m[1], "watch=true") {
			out[m[1]]++
		}
	}
	return out
}

// containers are those of the pods, by pod.
func (s *scene) containers() map[string]string {
	out := map[string]string{}
	for _, p := range s.s1.AwaitPods("default", "app=busy", pods) {
		out[string(p.UID)] = p.Status.ContainerStatuses[0].ContainerID
	}
	return out
}

// TestHistoryIsLost has a node come back when the server does not know any more what has changed: each resource is listed once.
func TestHistoryIsLost(t *testing.T) {
	s := newScene(t, []string{"--kube-apiserver-arg", "etcd-compaction-interval=3s"}, []string{"--tunnel-keepalive", "5", "--debug"})
	s.addServices("early", 2)
	known := 0
	s.lab.Await("the node to know the first Services", time.Minute, func() (err error) {
		if known, err = s.services(); err == nil && known < 3 {
			err = fmt.Errorf("%d", known)
		}
		return err
	})
	before := s.containers()
	s.farm.Uplink().Cut()
	s.awaitState("down")
	version := s.version()
	s.addServices("late", 5)
	s.s1.Kubectl("delete", "service", "early-0")
	gone := s.victim()
	s.s1.Kubectl("delete", "pod", gone, "--wait=false")
	s.s1.Stop() // its memory goes past the datastore's history
	s.s1.Start()
	s.s1.AwaitReady()
	s.lab.Await("the datastore to have forgotten", 2*time.Minute, func() error {
		out, err := s.s1.TryKubectl("get", "--raw", "/api/v1/services?resourceVersionMatch=Exact&limit=1&resourceVersion="+version)
		if err == nil {
			return fmt.Errorf("it knows what was: %.80s", out)
		}
		if !strings.Contains(out+err.Error(), "too old") && !strings.Contains(out+err.Error(), "Expired") && !strings.Contains(out+err.Error(), "compacted") {
			return err
		}
		return nil
	})

	listsBefore, logBefore := s.state().FullLists, len(s.a1.Log())
	s.farm.Uplink().Heal()
	s.awaitState("up")
	s.lab.Await("the node to know what has changed", 2*time.Minute, func() error {
		if n, err := s.services(); err != nil || n != known+4 {
			return fmt.Errorf("%d Services of %d, %w", n, known+4, err)
		}
		return nil
	})
	s.checkPods(before, gone)
	asked := lists(s.a1.Log()[logBefore:])
	t.Logf("%d full lists of %d resources", s.state().FullLists-listsBefore, len(asked))
	if len(asked) == 0 || s.state().FullLists == listsBefore {
		t.Error("nothing was listed: the history was not lost")
	}
	for path, n := range asked {
		if n != 1 {
			t.Errorf("%s was listed %d times", path, n)
		}
	}
}

// version is how far the server is.
func (s *scene) version() string {
	s.Helper()
	var l struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal([]byte(s.s1.Kubectl("get", "--raw", "/api/v1/services?limit=1")), &l); err != nil || l.Metadata.ResourceVersion == "" {
		s.Fatalf("version %q: %v", l.Metadata.ResourceVersion, err)
	}
	return l.Metadata.ResourceVersion
}

// victim is the name of one of the pods.
func (s *scene) victim() string {
	return s.s1.AwaitPods("default", "app=busy", pods)[0].Name
}

// checkPods waits until the pod that was deleted has gone and its successor runs, and compares the others with what they were.
func (s *scene) checkPods(before map[string]string, gone string) {
	s.Helper()
	s.lab.Await("the deleted pod to have gone", 2*time.Minute, func() error {
		if out, err := s.s1.TryKubectl("get", "pod", gone); err == nil {
			return fmt.Errorf("it is there: %s", out)
		}
		return nil
	})
	same, restarts := 0, int32(0)
	after := s.s1.AwaitPods("default", "app=busy", pods)
	for _, p := range after {
		if p.Status.Phase != corev1.PodRunning || p.Spec.NodeName != "a1" {
			s.Errorf("%s is %s on %s", p.Name, p.Status.Phase, p.Spec.NodeName)
		}
		c := p.Status.ContainerStatuses[0]
		restarts += c.RestartCount
		if before[string(p.UID)] == c.ContainerID {
			same++
		}
	}
	if same != pods-1 || restarts != 0 {
		s.Errorf("%d of %d pods are what they were, with %d restarts: %v", same, pods-1, restarts, maps.Collect(maps.All(before)))
	}
	s.s1.AwaitNodes("a1")
}
