package health

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/test/lab"
)

// scene is a server in a shop and three agents of one unit on a farm.
type scene struct {
	*testing.T
	lab    *lab.Lab
	farm   *lab.Site
	s1     *lab.Node
	agents []*lab.Node
	api    *kubernetes.Clientset
}

// hold is how long something must stay as it is.
const hold = 5 * time.Second

// replicas is how many pods there are: three of a Deployment and three of a StatefulSet.
const replicas = 6

// podSpec is of a pod without patience with nodes that are out of reach, spread over the agents.
const podSpec = `    spec:
      nodeSelector: {crop: wheat}
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sh, -c, "httpd -f -p 8080 -h /etc"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 2}`

// workload is those, behind a Service.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web, is: deployed}}
  template:
    metadata: {labels: {app: web, is: deployed}}
` + podSpec + `
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: web
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web, is: stateful}}
  template:
    metadata: {labels: {app: web, is: stateful}}
` + podSpec + `
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// newScene starts all of it.
func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l}
	shop := l.AddSite("shop")
	s.farm = l.AddSite("farm")
	s.s1 = shop.AddNode("s1", lab.Server("--disable-agent", "--kube-controller-manager-arg", "node-monitor-grace-period=12s"))
	s.s1.Start()
	s.s1.AwaitReady()
	for _, name := range []string{"a1", "a2", "a3"} {
		a := s.farm.AddAgent(name, s.s1, "--tunnel-keepalive", "5", "--node-label", "apps.openyurt.io/nodepool=farm", "--node-label", "crop=wheat")
		a.AddBusybox()
		a.Start()
		s.agents = append(s.agents, a)
	}
	s.s1.AwaitNodes("a1", "a2", "a3")
	var err error
	if s.api, err = s.s1.Client(); err != nil {
		t.Fatal(err)
	}
	s.s1.Kubectl("-n", "kube-system", "patch", "configmap", "edge-health-config", "--type", "merge", "-p", `{"data":{"lost-after":"10s"}}`)
	s.s1.Apply(workload)
	s.s1.AwaitPods("default", "app=web", replicas)
	for _, name := range []string{"a1", "a2", "a3"} {
		s.await(name+" knows its neighbours", func() error {
			if report := s.node(name).Annotations["autonomy.kedge.io/neighbours"]; strings.Count(report, `"a`) != 3 { // the word alive and two names
				return fmt.Errorf("reports %s", report)
			}
			return nil
		})
	}
	return s
}

func (s *scene) await(what string, done func() error) {
	s.Helper()
	s.lab.Await(what, 2*time.Minute, done)
}

func (s *scene) node(name string) *corev1.Node {
	s.Helper()
	n, err := s.api.CoreV1().Nodes().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// stands waits until nodes are in a state, and Kubernetes has noticed whether they are out of reach.
func (s *scene) stands(state string, names ...string) {
	s.Helper()
	for _, name := range names {
		s.await(name+" is "+state, func() error {
			n, conditions := s.node(name), map[corev1.NodeConditionType]corev1.NodeCondition{}
			for _, c := range n.Status.Conditions {
				conditions[c.Type] = c
			}
			link, ready := conditions["LinkUp"], conditions[corev1.NodeReady]
			lost := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
				return t.Key == corev1.TaintNodeUnreachable && t.Effect == corev1.TaintEffectNoSchedule
			})
			if link.Reason != state || (ready.Status == corev1.ConditionTrue) != (state == "Linked") || lost != (state != "Linked") {
				return fmt.Errorf("%s: %s, ready %s, taints %v", link.Reason, link.Message, ready.Status, n.Spec.Taints)
			}
			return nil
		})
	}
}

// pods returns where the pods are: container and restarts by node and pod.
func (s *scene) pods() map[string]string {
	s.Helper()
	list, err := s.api.CoreV1().Pods("default").List(s.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		s.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range list.Items {
		text := string(p.Status.Phase)
		for _, c := range p.Status.ContainerStatuses {
			text += fmt.Sprintf(" %s %d", c.ContainerID, c.RestartCount)
		}
		if p.DeletionTimestamp != nil {
			text += " going"
		}
		out[p.Spec.NodeName+"/"+p.Name] = text
	}
	return out
}

// endpoints counts the ready addresses of the Service.
func (s *scene) endpoints() int {
	s.Helper()
	list, err := s.api.DiscoveryV1().EndpointSlices("default").List(s.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
	if err != nil {
		s.Fatal(err)
	}
	ready := 0
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready
}

// stays fails unless pods and endpoints are as before all the time, which is as long as hold.
func (s *scene) stays(before map[string]string) {
	s.Helper()
	for end := time.Now().Add(hold); time.Now().Before(end); time.Sleep(time.Second) {
		if now := s.pods(); !maps.Equal(now, before) {
			s.Fatalf("pods were\n%v\nand are\n%v", before, now)
		}
		if n := s.endpoints(); n != len(before) {
			s.Fatalf("%d of %d endpoints are left", n, len(before))
		}
	}
}

// server cuts an agent off from the server alone, or heals that.
func (s *scene) server(a *lab.Node, cut bool) {
	s.Helper()
	rules := "add table inet cut\ndelete table inet cut\n"
	if cut {
		rules += fmt.Sprintf("table inet cut {\nchain in { type filter hook prerouting priority -500; ip saddr %[1]s drop; }\n"+
			"chain out { type filter hook postrouting priority 500; ip daddr %[1]s drop; }\n}\n", a.IP())
	}
	if _, err := s.s1.RunInput(rules, "nft", "-f", "-"); err != nil {
		s.Fatal(err)
	}
}

// moved waits until all pods are ready on living nodes, and returns how long that took.
func (s *scene) moved(from *lab.Node) time.Duration {
	s.Helper()
	begin := time.Now()
	s.await("pods of "+from.Name()+" run elsewhere", func() error {
		list, err := s.api.CoreV1().Pods("default").List(s.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range list.Items {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.Spec.NodeName != from.Name() {
					ready++
				}
			}
		}
		if ready != replicas || s.endpoints() != replicas {
			return errors.New(fmt.Sprint(s.pods()))
		}
		return nil
	})
	return time.Since(begin)
}
