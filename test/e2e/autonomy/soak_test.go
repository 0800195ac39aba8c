package autonomy

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/workload"
)

// restless are pods that are ready and not ready in turn, every two seconds: each time a status is written.
const restless = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: restless}
spec:
  replicas: 5
  selector: {matchLabels: {app: restless}}
  template:
    metadata: {labels: {app: restless}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sh, -c, "while :; do httpd -p 8080 -h /etc; sleep 2; killall httpd; sleep 2; done"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
      - name: dying
        image: kedge.local/busybox:1
        command: [sh, -c, "sleep 3; exit 1"]
`

// TestSoak cuts an agent off while its pods change all the time, for as long as the environment variable KEDGE_SOAK says, as 10m; for the second half of
// it there is no server at all. The agent's heap stays as it was, and no pod that was well restarts or is doubled, then and when the server is back.
// KEDGE_SOAK_HEAP names a file for a profile of the heap at the end.
func TestSoak(t *testing.T) {
	text := os.Getenv("KEDGE_SOAK")
	if text == "" {
		t.Skip("runs for as long as KEDGE_SOAK says, as 10m")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t)
	s.s1.Apply(workload.Manifest("a1", kedge))
	before := s.awaitPods(2*time.Minute, nil)
	s.measure("linked, ten pods")
	s.s1.Apply(restless)
	s.lab.Await("restless pods", 2*time.Minute, func() error {
		out, err := s.local("get", "pods", "-l", "app=restless", "-o", "jsonpath={.items[*].status.podIP}")
		if err == nil && len(strings.Fields(out)) != 5 {
			err = errors.New(out)
		}
		return err
	})
	s.s1.Kubectl("label", "node", "a1", "node-role.kubernetes.io/edge=") // other nodes lose their pods after five minutes
	s.farm.Uplink().Cut()
	s.awaitState("down")
	begin := time.Now()
	first, last, lost := 0.0, 0.0, false
	for time.Since(begin) < length {
		if !lost && time.Since(begin) > length/2 {
			s.s1.Kill()
			lost = true
		}
		last = s.measure(time.Since(begin).Round(time.Second).String())
		if first == 0 && time.Since(begin) > length/5 {
			first = last
		}
		time.Sleep(min(30*time.Second, length/10))
	}
	if last > 1.25*first+8 {
		t.Errorf("the live heap grew from %.1f to %.1f MiB", first, last)
	}
	if file := os.Getenv("KEDGE_SOAK_HEAP"); file != "" {
		if err := os.WriteFile(file, []byte(s.heap("gc=1")), 0o600); err != nil {
			t.Error(err)
		}
	}
	s.returns(before)
}

// returns starts the server and heals the link: the pods stay what they were, on both sides.
func (s *scene) returns(before map[string]corev1.Pod) {
	s.Helper()
	s.unchanged(before, s.awaitPods(2*time.Minute, nil), true)
	s.s1.Start()
	s.s1.AwaitReady()
	lists, bytes, begin := s.state().FullLists, s.farm.Uplink().Bytes(), time.Now()
	s.farm.Uplink().Heal()
	s.awaitState("up")
	s.s1.AwaitNodes("s1", "a1")
	s.Logf("node ready %v after the link, %d full lists, %d bytes", time.Since(begin).Round(time.Millisecond), s.state().FullLists-lists,
		s.farm.Uplink().Bytes().Since(bytes).Total())
	<-time.After(time.Minute) // what the server might delete or double, it has by then
	s.unchanged(before, s.awaitPods(2*time.Minute, nil), true)
	if remote, err := workload.Read([]byte(s.s1.Kubectl("get", "pods", "-n", "default", "-o", "json"))); err != nil || len(remote) != workload.Pods {
		s.Errorf("the server has %d pods, %v", len(remote), err)
	}
	s.measure("a minute after the return")
}

// heap asks the agent's kubelet for a profile of the process's heap, as the operator of the node.
func (s *scene) heap(query string) string {
	s.Helper()
	const dir = "/var/lib/kedge/agent/"
	out, err := s.a1.Run("curl", "-s", "-k", "--cert", dir+"local-operator.crt", "--key", dir+"local-operator.key", "https://127.0.0.1:10250/debug/pprof/heap?"+query)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// measure logs what the agent needs, and returns its live heap in MiB.
func (s *scene) measure(when string) float64 {
	s.Helper()
	text := s.heap("gc=1&debug=1")
	alloc := regexp.MustCompile(`# HeapAlloc = (\d+)`).FindStringSubmatch(text)
	if alloc == nil {
		s.Fatalf("the kubelet answers %.200s", text)
	}
	bytes, err := strconv.ParseFloat(alloc[1], 64)
	if err != nil {
		s.Fatal(err)
	}
	memory := s.a1.Exec("sh", "-c", "cat /proc/$(pidof -s kedge)/smaps_rollup | awk '/^Pss/{print $1 $2}' | tr '\\n' ' '; stat -c 'store %s bytes' "+store)
	s.Logf("%s: live heap %.1f MiB, %s, %+v", when, bytes/(1<<20), memory, s.state())
	return bytes / (1 << 20)
}
