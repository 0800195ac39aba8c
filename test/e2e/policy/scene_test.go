package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/lab"
)

const imageRef = "kedge.local/probe:1"

// scene is a server and an agent with nine pods: a, b and c in each of the namespaces x, y and z. Two of three run on the server.
type scene struct {
	*testing.T
	lab    *lab.Lab
	s1, a1 *lab.Node
	pods   []corev1.Pod
	source int // the next source port, so that no two rounds share a connection in the kernel's eyes
}

func newScene(t *testing.T, args ...string) *scene {
	t.Helper()
	l := lab.New(t)
	shop := l.AddSite("shop")
	s := &scene{T: t, lab: l, source: 10000}
	s.s1 = shop.AddNode("s1", lab.Server(args...))
	s.addImage(s.s1)
	s.s1.Start()
	s.s1.AwaitReady()
	s.a1 = shop.AddAgent("a1", s.s1)
	s.addImage(s.a1)
	s.a1.Start()
	s.s1.AwaitNodes("s1", "a1")
	s.startPods()
	return s
}

// addImage puts the program of the pods into the machine's images folder.
func (s *scene) addImage(n *lab.Node) {
	s.Helper()
	program := filepath.Join(s.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/kedge-io/kedge/test/e2e/policy/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("build probe: %v\n%s", err, out)
	}
	image, err := images.Program(imageRef, program)
	if err != nil {
		s.Fatal(err)
	}
	n.AddImage(image, "probe.tar")
}

// The port "alt" has another number in the pods c.
const podTemplate = `
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]q, labels: {pod: %[2]s, app: probe}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: kedge.local/probe:1
    readinessProbe: {httpGet: {path: /healthz, port: 9000}, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 5}
    ports: [{name: main, containerPort: 8080}, {name: alt, containerPort: %[4]d}, {name: main-udp, containerPort: 8080, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]q}
spec:
  selector: {pod: %[2]s}
  ports:
  - {name: tcp0, port: 8080}
  - {name: udp0, port: 8080, protocol: UDP}
---
`

func (s *scene) startPods() {
	s.Helper()
	var all strings.Builder
	for _, ns := range names("x", "y", "z") {
		fmt.Fprintf(&all, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %[1]q, labels: {ns: %[1]q}}\n---\n", ns)
		for _, pod := range names("a", "b", "c") {
			node, alt := "s1", 8081
			if pod == "b" {
				node = "a1"
			}
			if pod == "c" {
				alt = 8080
			}
			fmt.Fprintf(&all, podTemplate, ns, pod, node, alt)
		}
	}
	s.lab.Await("pods are accepted", time.Minute, func() error { // the service account of a new namespace takes a moment
		return s.s1.TryApply(all.String())
	})
	s.pods = s.s1.AwaitPods("", "app=probe", 9)
}

func names(n ...string) []string { return n }

// peer is one end of a cell.
type peer struct{ ns, pod string }

// at is what a cell connects to.
type at struct {
	network string
	port    int
}

// ask has a pod try targets, all at once.
func (s *scene) ask(pod *corev1.Pod, source int, timeout time.Duration, targets []string) ([]bool, error) {
	body, err := json.Marshal(map[string]any{"timeout": timeout.String(), "source": source, "targets": targets})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	node := s.s1
	if pod.Spec.NodeName == "a1" {
		node = s.a1
	}
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, "9000") + "/probe"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: node.Dial, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var results []bool
	if err := json.NewDecoder(response.Body).Decode(&results); err != nil || len(results) != len(targets) {
		return nil, fmt.Errorf("%s: %d results, %w", response.Status, len(results), err)
	}
	return results, nil
}

// matrix tries every pod from every pod at all addresses, and returns what answered.
func (s *scene) matrix(timeout time.Duration, ats []at, address func(*corev1.Pod) []string) (map[string]bool, error) {
	var targets, labels []string
	for i := range s.pods {
		for _, a := range ats {
			for n, ip := range address(&s.pods[i]) {
				targets = append(targets, fmt.Sprintf("%s %s", a.network, net.JoinHostPort(ip, fmt.Sprint(a.port))))
				labels = append(labels, fmt.Sprintf("%s/%s %s %d #%d", s.pods[i].Namespace, s.pods[i].Name, a.network, a.port, n))
			}
		}
	}
	source := s.source
	s.source += len(targets)
	reached := map[string]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed error
	for i := range s.pods {
		pod := &s.pods[i]
		all.Go(func() {
			results, err := s.ask(pod, source, timeout, targets)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = fmt.Errorf("ask %s/%s: %w", pod.Namespace, pod.Name, err)
				return
			}
			for j, ok := range results {
				reached[pod.Namespace+"/"+pod.Name+" > "+labels[j]] = ok
			}
		})
	}
	all.Wait()
	return reached, failed
}

// podIPs are all addresses of a pod.
func podIPs(p *corev1.Pod) []string {
	var out []string
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return out
}
