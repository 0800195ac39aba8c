package autonomy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/workload"
)

// store is what a node knows.
const store = "/var/lib/kedge/agent/autonomy.db"

// restartPod restarts a pod in the way that the refusal to delete it names: it has other containers then, and the others have not.
func (s *scene) restartPod(before map[string]corev1.Pod) {
	s.Helper()
	const name = "client-0"
	s.a1.Exec("sh", "-c", "PATH=/opt/kedge/bin:$PATH; kedge crictl stopp $(kedge crictl pods -q --namespace default --name '^"+name+"$')")
	others := maps.Clone(before)
	delete(others, name)
	s.lab.Await("the restarted pod", 2*time.Minute, func() error {
		now, err := s.pods()
		if err != nil {
			return err
		}
		if !workload.IsReady(now[name]) || workload.Same(before, now, true) == nil {
			return fmt.Errorf("%s is not ready in other containers: %+v", name, now[name].Status.ContainerStatuses)
		}
		return errors.Join(workload.Same(before, now, false), workload.Same(others, now, true))
	})
}

// torture damages what the node knows in every way, without the server: its containers run on, it answers right or not at all, kedge does not end, and
// says what is lost; with the server all is as before.
func (s *scene) torture(uplink *lab.Link, pods map[string]corev1.Pod) {
	s.Helper()
	s.a1.Exec("rm", store)
	s.lab.Await("a removed store is written anew", time.Minute, func() error {
		_, err := s.a1.Run("test", "-s", store)
		return err
	})
	s.said("somebody else touched the autonomy store")

	uplink.Cut()
	s.awaitState("down")
	for range 4 {
		s.a1.Kill()
		s.a1.Start()
		<-time.After(rand.N(3 * time.Second)) // whatever it is doing then
	}
	s.a1.Kill()
	s.a1.Start()
	s.a1.AwaitKedge(2 * time.Minute)
	s.unchanged(pods, s.awaitPods(2*time.Minute, nil), true)

	for _, d := range []struct {
		said string
		do   func(path string) error
	}{
		{"part of the autonomy store was damaged", flipBits},
		{"the autonomy store is of another node", func(path string) error { return copyFile(s.s1.HostPath(store), path) }},
		{"there was no store", os.Remove},
	} {
		s.a1.Kill()
		if err := d.do(s.a1.HostPath(store)); err != nil {
			s.Fatal(err)
		}
		s.a1.Start()
		s.survives(d.said, pods)
	}
	uplink.Heal()
	s.awaitState("up")
	s.a1.AwaitReady()
	s.unchanged(pods, s.awaitPods(2*time.Minute, nil), true)
	s.works()
	if out := s.a1.Kedge("status"); strings.Contains(out, "when kedge started") {
		s.Errorf("with the server back, kedge status still tells of what was lost:\n%s", out)
	}
}

// survives watches a node that started without the server and without all that it knew, which its log says in these words.
func (s *scene) survives(loss string, pods map[string]corev1.Pod) {
	s.Helper()
	s.said(loss)
	s.lab.Await("kedge status tells of the loss", time.Minute, func() error {
		out, err := s.a1.TryKedge("status") // it fails while parts of the node wait for the server
		if !strings.Contains(out, "when kedge started") {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if !s.a1.Running() {
			s.Fatalf("%s: kedge ended", loss)
		}
		now, err := s.pods() // it may say that it does not know
		for name, p := range now {
			if err == nil && p.UID != pods[name].UID { // its status may be the one before, where the newest record is lost
				s.Errorf("%s: %s is %s and was %s", loss, name, p.UID, pods[name].UID)
			}
		}
	}
	running := s.a1.Kedge("crictl", "ps", "-q", "--no-trunc")
	for name, p := range pods {
		if id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://"); !strings.Contains(running, id) {
			s.Errorf("%s: the container of %s does not run any more", loss, name)
		}
	}
}

// said waits for a line in the agent's log.
func (s *scene) said(what string) {
	s.Helper()
	s.lab.Await("the log says "+what, time.Minute, func() error {
		if !strings.Contains(s.a1.Log(), what) {
			return errors.New("not yet")
		}
		return nil
	})
}

// flipBits damages a file in its middle.
func flipBits(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for range 10 {
		data[len(data)/4+rand.IntN(len(data)/2)] ^= 1 << rand.IntN(8)
	}
	return os.WriteFile(path, data, 0o600)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}
