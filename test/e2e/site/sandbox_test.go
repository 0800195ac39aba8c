package site

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSandboxDeath kills what holds a pod together: the pod comes back with the address it had.
func TestSandboxDeath(t *testing.T) {
	s := newScene(t)
	s.start()
	s.s1.Apply(pausedPods)
	pods := s.s1.AwaitPods("default", "app=hello", 2)
	for name, find := range map[string]func(*scene, sandbox) string{
		"pause process": func(_ *scene, b sandbox) string { return strconv.Itoa(b.pid) },
		"shim":          func(s *scene, b sandbox) string { return s.s1.Exec("pgrep", "-f", "containerd-shim.* -id "+b.id) },
	} {
		before := s.pod(pods[0].Name)
		box := s.sandboxOf(before)
		s.s1.Exec("kill", "-KILL", find(s, box))
		s.awaitNewSandbox(name, box)
		after := s.s1.AwaitPods("default", "app=hello", 2)
		got := s.pod(before.Name)
		if got.UID != before.UID || got.Status.PodIP != before.Status.PodIP {
			t.Errorf("%s killed: pod had %s and has now %s", name, before.Status.PodIP, got.Status.PodIP)
		}
		for i := range after {
			if ip := after[i].Status.PodIP; after[i].Name != before.Name && ip == got.Status.PodIP {
				t.Errorf("%s killed: two pods have %s", name, ip)
			}
		}
		s.reachable(got)
	}
}

// reachable runs a web server in a pod and asks it from the machine.
func (s *scene) reachable(pod *corev1.Pod) {
	s.Helper()
	s.s1.Kubectl("exec", pod.Name, "--", "sh", "-c", "echo here > /tmp/index.html; pgrep httpd || httpd -p 8080 -h /tmp")
	if got, err := s.get("http://" + net.JoinHostPort(pod.Status.PodIP, "8080")); got != "here" {
		s.Errorf("pod %s at %s: %q, %v", pod.Name, pod.Status.PodIP, got, err)
	}
}

func (s *scene) pod(name string) *corev1.Pod {
	s.Helper()
	client, err := s.s1.Client()
	if err != nil {
		s.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("default").Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

// sandbox is what containerd knows of a pod.
type sandbox struct {
	id, pod string
	pid     int
}

// sandboxOf finds the newest sandbox of a pod.
func (s *scene) sandboxOf(pod *corev1.Pod) sandbox {
	s.Helper()
	id, _, _ := strings.Cut(s.s1.Kedge("crictl", "pods", "--quiet", "--no-trunc", "--latest", "--name", pod.Name), "\n")
	var inspected struct {
		Info struct {
			PID int `json:"pid"`
		} `json:"info"`
	}
	if err := json.Unmarshal([]byte(s.s1.Kedge("crictl", "inspectp", id)), &inspected); err != nil {
		s.Fatal(err)
	}
	if inspected.Info.PID < 2 {
		s.Fatalf("sandbox %s has process %d", id, inspected.Info.PID)
	}
	return sandbox{id: id, pod: pod.Name, pid: inspected.Info.PID}
}

func (s *scene) awaitNewSandbox(what string, old sandbox) {
	s.Helper()
	begin := time.Now()
	s.lab.Await("a new sandbox after "+what+" was killed", time.Minute, func() error {
		ready, err := s.s1.Run("kedge", "crictl", "pods", "--quiet", "--no-trunc", "--name", old.pod, "--state", "ready")
		if err != nil {
			return err
		}
		if id := strings.TrimSpace(ready); id == "" || strings.Contains(id, old.id) {
			return fmt.Errorf("ready sandboxes: %q", id)
		}
		return nil
	})
	s.Logf("%s killed: a new sandbox after %v", what, time.Since(begin).Round(time.Millisecond))
}
