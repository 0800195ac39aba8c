package grid

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// open is the Service of the fixture without session affinity, and one that every node publishes.
const open = `
apiVersion: superedge.io/v1
kind: ServiceGrid
metadata: {name: open, namespace: default}
spec:
  gridUniqKey: zone
  template:
    type: NodePort
    selector: {appGrid: nginx}
    ports: [{port: 80, targetPort: 80, nodePort: 30080}]
`

func TestTrafficStaysInsideTheUnit(t *testing.T) {
	s := newScene(t, false)
	s.fixture("superedge-grids")
	s.s1.Apply(open)
	s.s1.AwaitField("dg", "deploymentgrid-demo", "{.status.units} {.status.readyUnits}", "2 2")
	s.s1.AwaitField("ssg", "statefulsetgrid-demo", "{.status.units} {.status.readyUnits}", "2 2")
	service := "http://" + s.get("service", "open-svc", "{.spec.clusterIP}")
	s.only(s.a1, service, "zone-1")
	s.only(s.a2, service, "zone-1")
	s.only(s.b1, service, "zone-2")
	s.only(s.a1, "http://"+s.a1.IP()+":30080", "zone-1")
	s.only(s.b1, "http://"+s.get("service", "servicegrid-demo-svc", "{.spec.clusterIP}"), "zone-2")
	if got := s.answers(s.s1, service, 5); got[""] != 5 {
		t.Errorf("a node without a unit is answered by %v", got)
	}
	s.names()
	s.empty()
	s.newUnit(service)
	s.cutOff(service)
}

// solo is a grid that leaves the number of replicas to others, with an address, a port of nodes and a headless name.
const solo = `
apiVersion: superedge.io/v1
kind: DeploymentGrid
metadata: {name: solo, namespace: default}
spec:
  gridUniqKey: zone
  template:
    selector: {matchLabels: {app: solo}}
    template:
      metadata: {labels: {app: solo}}
      spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "nginx:1.7.9"}]}
---
apiVersion: superedge.io/v1
kind: ServiceGrid
metadata: {name: solo, namespace: default}
spec: {gridUniqKey: zone, template: {type: NodePort, selector: {app: solo}, ports: [{port: 80, nodePort: 30081}]}}
---
apiVersion: superedge.io/v1
kind: ServiceGrid
metadata: {name: solo-head, namespace: default}
spec: {gridUniqKey: zone, template: {clusterIP: None, selector: {app: solo}, ports: [{port: 80}]}}
`

// empty takes the last endpoint of a unit away: it refuses, and nobody else helps out. The number that somebody sets stays.
func (s *scene) empty() {
	s.Helper()
	s.s1.Apply(solo)
	s.s1.AwaitField("dg", "solo", "{.status.units} {.status.readyUnits}", "2 2")
	service := "http://" + s.get("service", "solo-svc", "{.spec.clusterIP}")
	s.only(s.b1, service, "zone-2")
	asker := s.pod("deploymentgrid-demo-zone-2")
	name := func() string {
		out, err := s.s1.TryKubectl("exec", asker, "--", "wget", "-q", "-O-", "http://solo-head-svc")
		return fmt.Sprint(out, err)
	}
	s.lab.Await("the headless name", 2*time.Minute, func() error {
		if got := name(); !strings.Contains(got, "solo-zone-2-") {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
	s.s1.Kubectl("scale", "deployment", "solo-zone-2", "--replicas=0")
	for _, url := range []string{service, "http://" + s.b1.IP() + ":30081"} {
		s.lab.Await(url+" to refuse on b1", 2*time.Minute, func() error {
			if out, err := s.b1.Run("curl", "-s", "--max-time", "20", url); err == nil || !strings.Contains(err.Error(), "exit status 7") {
				return fmt.Errorf("it says %q, %w", out, err)
			}
			return nil
		})
	}
	s.lab.Await("the headless name without an address", 2*time.Minute, func() error {
		if got := name(); !strings.Contains(got, "bad address") {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
	s.only(s.a1, service, "zone-1")
	s.s1.Kubectl("annotate", "dg", "solo", "grid.kedge.io/paused=false") // the grid looks at all of it once more
	s.s1.AwaitField("dg", "solo", "{.status.readyUnits} {.status.readyReplicas}", "2 1")
	if got := s.get("deployment", "solo-zone-2", "{.spec.replicas}"); got != "0" {
		s.Errorf("somebody set 0 replicas, now there are %q", got)
	}
}

// names uses the same name in both units.
func (s *scene) names() {
	s.Helper()
	for _, unit := range []string{"zone-1", "zone-2"} {
		pod := s.pod("deploymentgrid-demo-" + unit)
		for url, want := range map[string]string{
			"http://statefulsetgrid-demo-0.echogrid-demo-svc.default.svc": "statefulsetgrid-demo-" + unit + "-0",
			"http://statefulsetgrid-demo-1.echogrid-demo-svc":             "statefulsetgrid-demo-" + unit + "-1",
			"http://echogrid-demo-svc":                                    "statefulsetgrid-demo-" + unit + "-",
		} {
			s.lab.Await(url+" in "+unit, time.Minute, func() error {
				out, err := s.s1.TryKubectl("exec", pod, "--", "wget", "-q", "-O-", url)
				if err != nil || !strings.HasPrefix(out, want) {
					return fmt.Errorf("answer %q, %w", out, err)
				}
				return nil
			})
		}
	}
	out := s.s1.Kubectl("exec", s.pod("deploymentgrid-demo-zone-1"), "--", "sh", "-c", "for i in $(seq 200); do wget -q -O- http://open-svc; done")
	if got := count(out, 200); got["zone-1"] != 200 {
		s.Errorf("200 requests of a pod in zone-1 were answered by %v", got)
	}
}

// newUnit makes a unit of a node, and moves the node to another.
func (s *scene) newUnit(service string) {
	s.Helper()
	begin := time.Now()
	s.s1.Kubectl("label", "node", "c1", "zone=zone-3")
	s.s1.AwaitField("deployment", "deploymentgrid-demo-zone-3", "{.status.readyReplicas}", "2")
	s.Logf("a new unit has its workloads %s after its first node was labelled", time.Since(begin).Round(time.Millisecond))
	s.only(s.c1, service, "zone-3")
	s.s1.Kubectl("label", "--overwrite", "node", "c1", "zone=zone-2")
	s.only(s.c1, service, "zone-2")
	if got := s.get("deployment", "deploymentgrid-demo-zone-3", "{.metadata.name}"); got != "" {
		s.Error("the unit is gone and its workload is not")
	}
}

// cutOff cuts the mall off from the server, and starts one of its nodes again.
func (s *scene) cutOff(service string) {
	s.Helper()
	s.mall.Uplink().Cut()
	s.only(s.a1, service, "zone-1")
	s.only(s.a2, "http://"+s.a2.IP()+":30080", "zone-1")
	s.a1.Kill()
	s.a1.Start()
	s.a1.AwaitReady()
	s.only(s.a1, service, "zone-1")
	s.mall.Uplink().Heal()
	s.s1.AwaitNodes("a1", "a2")
	s.only(s.a1, service, "zone-1")
}

func TestFixtures(t *testing.T) {
	s := newScene(t, false)
	s.fixture("superedge-canary")
	s.fixture("tke-deploymentgrid")
	s.fixture("tke-servicegrid")
	image := "{.spec.template.spec.containers[0].image} {.status.readyReplicas}"
	s.s1.AwaitField("deployment", "canary-demo-zone-1", image, "nginx:1.9.1 2")
	s.s1.AwaitField("deployment", "canary-demo-zone-2", image, "nginx:1.7.9 1")
	for _, unit := range []string{"zone-1", "zone-2"} {
		s.s1.AwaitField("deployment", "deploymentgrid-demo-"+unit, image, "nginx:1.7.9 2")
	}
	service := "http://" + s.get("service", "servicegrid-demo-svc", "{.spec.clusterIP}")
	s.only(s.b1, service, "zone-2")

	s.s1.Kubectl("label", "node", "b1", "store=beijing")
	s.fixture("site")
	s.s1.AwaitField("node", "b1", "{.metadata.labels.tier} {.metadata.labels.stores} {.metadata.labels.stores-old-spelling}", "shop-floor beijing beijing")
	s.s1.AwaitField("nu", "store-beijing", "{.status.readyRate}", "1/1")
	s.s1.AwaitField("ng", "stores", "{.status.nodeUnits[0]}", "beijing")

	s.s1.Kubectl("label", "node", "c1", "apps.openyurt.io/nodepool=hangzhou")
	s.fixture("openyurt")
	s.s1.AwaitField("deployment", "web-hangzhou", image, "nginx:1.9.1 3")
	s.s1.AwaitField("node", "c1", "{.metadata.labels.region} {.spec.taints[0].key}", "hangzhou apps.openyurt.io/example")
	s.s1.AwaitField("yas", "web", "{.status.totalWorkloads} {.status.readyWorkloads}", "1 1")
	s.s1.AwaitField("np", "hangzhou", "{.status.readyNodeNum}", "1")
}
