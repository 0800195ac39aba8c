package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

// scene is one server in the lab.
type scene struct {
	*testing.T
	lab *lab.Lab
	s1  *lab.Node
}

// newScene makes a machine with the busybox image; kedge is not started.
func newScene(t *testing.T, args ...string) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, s1: l.AddSite("shop").AddNode("s1", lab.Server(args...))}
	s.s1.AddBusybox()
	return s
}

// start starts kedge, waits until it is ready and returns how long the API took to answer /readyz.
func (s *scene) start() time.Duration {
	s.Helper()
	begin := time.Now()
	s.s1.Start()
	api := s.awaitAPI(begin)
	s.s1.AwaitReady()
	s.Logf("from start: API ready after %v, node ready after %v", api.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	return api
}

// awaitAPI waits for /readyz of the API server and returns the time since begin.
func (s *scene) awaitAPI(begin time.Time) time.Duration {
	s.Helper()
	s.lab.Await("the API", time.Minute, func() error {
		client, err := s.s1.Client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.Context(), 2*time.Second)
		defer cancel()
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return time.Since(begin)
}

// example applies the example of the README and waits until all of it is there.
func (s *scene) example() []corev1.Pod {
	s.Helper()
	yaml, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "examples", "hello.yaml"))
	if err != nil {
		s.Fatal(err)
	}
	begin := time.Now()
	s.s1.Apply(string(yaml))
	pods := s.s1.AwaitPods("default", "app=hello", 2)
	s.s1.Kubectl("wait", "--for=condition=complete", "--timeout=90s", "job/greet")
	s.Logf("the example took %v", time.Since(begin).Round(time.Millisecond))
	return pods
}

const greeting = "Hello from kedge"

// TestExample does what the README tells a first user to do.
func TestExample(t *testing.T) {
	s := newScene(t)
	s.start()
	pods := s.example()
	first := pods[0].Name
	if got := s.s1.Kubectl("get", "pvc", "notes", "-o", "jsonpath={.status.phase}"); got != "Bound" {
		t.Errorf("claim is %q", got)
	}
	if got := s.s1.Kubectl("logs", "job/greet"); got != greeting {
		t.Errorf("logs: %q", got)
	}
	address := s.s1.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	for _, host := range []string{address, "hello", "hello.default", "hello.default.svc.cluster.local"} {
		if got, err := s.s1.Run("kedge", "kubectl", "exec", first, "--", "wget", "-q", "-O", "-", "http://"+host); strings.TrimSpace(got) != greeting {
			t.Errorf("from a pod by %s: %q, %v", host, got, err)
		}
	}
	for _, url := range []string{"http://" + address, "http://" + pods[0].Status.PodIP + ":8080", "http://" + pods[1].Status.PodIP + ":8080"} {
		if got, err := s.get(url); got != greeting {
			t.Errorf("from the machine by %s: %q, %v", url, got, err)
		}
	}
	s.exec(first)
	s.portForward()
	s.copyFiles(first)
	s.runtimeTools(first)
	s.moveVolume()
	s.remove()
}

// get fetches a page from the machine.
func (s *scene) get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.s1.Dial, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), err
}

// exec runs programs in a pod, with input and with an exit code.
func (s *scene) exec(pod string) {
	s.Helper()
	if got := s.s1.Kubectl("exec", pod, "--", "hostname"); got != pod {
		s.Errorf("exec hostname: %q, want %q", got, pod)
	}
	if got, err := s.s1.RunInput("some input", "kedge", "kubectl", "exec", "-i", pod, "--", "cat"); got != "some input" {
		s.Errorf("exec with input: %q, %v", got, err)
	}
	if _, err := s.s1.Run("kedge", "kubectl", "exec", pod, "--", "sh", "-c", "exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		s.Errorf("exit code 3 of a program in a pod: %v", err)
	}
}

// portForward fetches the page through kubectl port-forward.
func (s *scene) portForward() {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan error, 1)
	said := make(chan string, 10)
	go func() {
		ended <- s.s1.RunStreams(ctx, control.Command{
			Argv: []string{"kedge", "kubectl", "port-forward", "service/hello", "8000:80"}, Stdout: lines(said), Stderr: lines(said),
		})
	}()
	select {
	case line := <-said:
		if !strings.Contains(line, "Forwarding from 127.0.0.1:8000") {
			s.Errorf("port-forward says %q", line)
		}
	case err := <-ended:
		s.Fatalf("port-forward ended: %v", err)
	case <-time.After(30 * time.Second):
		s.Fatal("port-forward says nothing")
	}
	if got, err := s.get("http://127.0.0.1:8000"); got != greeting {
		s.Errorf("through port-forward: %q, %v", got, err)
	}
	cancel()
	<-ended
}

// lines is a writer that sends what it gets.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default: // nobody reads the rest
	}
	return len(p), nil
}

// copyFiles copies a file into a pod and back.
func (s *scene) copyFiles(pod string) {
	s.Helper()
	s.s1.Exec("sh", "-c", "head -c 3000000 /dev/urandom > /tmp/there")
	s.s1.Kubectl("cp", "/tmp/there", pod+":/tmp/copy")
	s.s1.Kubectl("cp", pod+":/tmp/copy", "/tmp/back")
	if out, err := s.s1.Run("cmp", "/tmp/there", "/tmp/back"); err != nil {
		s.Errorf("after cp to the pod and back: %s %v", out, err)
	}
}

// runtimeTools looks at the pods from below.
func (s *scene) runtimeTools(pod string) {
	s.Helper()
	if out := s.s1.Kedge("crictl", "pods"); !strings.Contains(out, pod) {
		s.Errorf("crictl pods does not show %s:\n%s", pod, out)
	}
	if out := s.s1.Kedge("ctr", "-n", "k8s.io", "images", "ls", "-q"); !strings.Contains(out, "kedge.local/busybox:1") {
		s.Errorf("ctr images does not show busybox:\n%s", out)
	}
	if out := s.s1.Kedge("status"); !strings.Contains(out, "ready") {
		s.Errorf("kedge status:\n%s", out)
	}
}

// moveVolume deletes the pod that wrote to the volume and reads with another one what it left.
func (s *scene) moveVolume() {
	s.Helper()
	s.s1.Kubectl("delete", "job/greet", "--wait", "--timeout=60s")
	s.s1.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "kedge.local/busybox:1", command: [cat, /notes/greeting], volumeMounts: [{name: notes, mountPath: /notes}]}
  volumes: [{name: notes, persistentVolumeClaim: {claimName: notes}}]
`)
	s.lab.Await("what the other pod wrote", time.Minute, func() error {
		if got, err := s.s1.Run("kedge", "kubectl", "logs", "reader"); err != nil || strings.TrimSpace(got) != greeting {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
	s.s1.Kubectl("delete", "pod/reader", "--wait", "--timeout=60s")
}

// remove deletes the example; the volume's directory goes with its claim.
func (s *scene) remove() {
	s.Helper()
	volumes := s.s1.HostPath("/var/lib/kedge/storage")
	if found, err := os.ReadDir(volumes); len(found) != 1 {
		s.Errorf("volumes before: %v, %v", found, err)
	}
	s.s1.Kubectl("delete", "deployment/hello", "service/hello", "configmap/hello", "pvc/notes", "--timeout=60s")
	s.lab.Await("volume removed", time.Minute, func() error {
		if found, err := os.ReadDir(volumes); err != nil || len(found) > 0 {
			return fmt.Errorf("%v, %w", found, err)
		}
		return nil
	})
	s.s1.AwaitPods("default", "", 0)
}

// footprint is what must not change in a pod that goes on: its container and when it started, how often it was restarted, its address.
func footprint(pod *corev1.Pod) string {
	type container struct {
		ID       string
		Restarts int32
		Started  *metav1.Time
	}
	var all []container
	for _, c := range pod.Status.ContainerStatuses {
		one := container{ID: c.ContainerID, Restarts: c.RestartCount}
		if c.State.Running != nil {
			one.Started = &c.State.Running.StartedAt
		}
		all = append(all, one)
	}
	text, err := json.Marshal(map[string]any{"pod": pod.Name, "uid": pod.UID, "ip": pod.Status.PodIP, "containers": all})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// unchanged waits until the pods are ready and the kubelet has worked on a new one, and compares footprints.
func (s *scene) unchanged(before []corev1.Pod) {
	s.Helper()
	s.s1.Kubectl("run", "probe", "--image=kedge.local/busybox:1", "--restart=Never", "--", "sleep", "1000")
	s.s1.Kubectl("wait", "--for=condition=ready", "--timeout=60s", "pod/probe")
	s.s1.Kubectl("delete", "pod", "probe", "--now")
	want := map[string]string{}
	for i := range before {
		want[before[i].Name] = footprint(&before[i])
	}
	after := s.s1.AwaitPods("default", "app=hello", len(before))
	for i := range after {
		if got := footprint(&after[i]); got != want[after[i].Name] {
			s.Errorf("pod changed:\nbefore %s\nafter  %s", want[after[i].Name], got)
		}
	}
}

// TestRestart stops and starts kedge below running pods.
func TestRestart(t *testing.T) {
	s := newScene(t)
	s.start()
	pods := s.example()
	begin := time.Now()
	s.s1.Stop()
	t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	for _, p := range pods {
		if got, err := s.get("http://" + net.JoinHostPort(p.Status.PodIP, "8080")); got != greeting {
			t.Errorf("pod %s while kedge is stopped: %q, %v", p.Name, got, err)
		}
	}
	s.start()
	s.unchanged(pods)
	if n := bytes.Count([]byte(s.s1.Log()), []byte("panic")); n > 0 {
		t.Errorf("the log has %d panics", n)
	}
}

// TestReboot switches the machine off and on: the pods come back with the addresses they had.
func TestReboot(t *testing.T) {
	s := newScene(t)
	s.start()
	want := map[string]string{}
	for _, p := range s.example() {
		want[p.Name] = p.Status.PodIP
	}
	s.s1.Reboot()
	s.start()
	s.awaitRestarted(want)
}

// awaitRestarted waits until the pods have new containers and compares their addresses.
func (s *scene) awaitRestarted(want map[string]string) {
	s.Helper()
	s.lab.Await("pods restarted", time.Minute, func() error {
		for _, p := range s.s1.AwaitPods("default", "app=hello", len(want)) {
			if p.Status.ContainerStatuses[0].RestartCount == 0 {
				return fmt.Errorf("pod %s was not restarted yet", p.Name)
			}
		}
		return nil
	})
	for _, p := range s.s1.AwaitPods("default", "app=hello", len(want)) {
		if p.Status.PodIP != want[p.Name] {
			s.Errorf("pod %s had %s and has now %s", p.Name, want[p.Name], p.Status.PodIP)
		}
		if got, err := s.get("http://" + net.JoinHostPort(p.Status.PodIP, "8080")); got != greeting {
			s.Errorf("pod %s: %q, %v", p.Name, got, err)
		}
	}
}
