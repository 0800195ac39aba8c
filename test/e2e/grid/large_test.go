package grid

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestThreeUnitsOfTwoNodes is the scene with seven machines. It takes minutes on a small host: KEDGE_LARGE=1 asks for it.
func TestThreeUnitsOfTwoNodes(t *testing.T) {
	if os.Getenv("KEDGE_LARGE") == "" {
		t.Skip("seven machines; set KEDGE_LARGE=1")
	}
	const limit = "/proc/sys/fs/inotify/max_user_instances" // all machines share it; each takes about 15
	text, err := os.ReadFile(limit)
	if n, bad := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || bad != nil || n < 256 {
		t.Fatalf("%s is %s: seven machines need 256, sysctl -w fs.inotify.max_user_instances=256", limit, text)
	}
	s := newScene(t, true)
	s.fixture("superedge-grids")
	s.s1.Apply(open)
	s.s1.Kubectl("label", "node", "c1", "c2", "zone=zone-3")
	s.s1.AwaitField("dg", "deploymentgrid-demo", "{.status.units} {.status.readyUnits}", "3 3")
	s.s1.AwaitField("ssg", "statefulsetgrid-demo", "{.status.units} {.status.readyUnits}", "3 3")
	service := "http://" + s.get("service", "open-svc", "{.spec.clusterIP}")
	s.only(s.a1, service, "zone-1")
	s.only(s.a2, "http://"+s.a2.IP()+":30080", "zone-1")
	s.only(s.b1, service, "zone-2")
	s.only(s.b2, service, "zone-2")
	s.only(s.c1, service, "zone-3")
	s.only(s.c2, service, "zone-3")
	s.inPods()
	s.autoscale()
	s.s1.Kubectl("label", "--overwrite", "node", "c2", "zone=zone-1")
	s.only(s.c2, service, "zone-1")
	s.only(s.c1, service, "zone-3")
	s.s1.Kubectl("label", "--overwrite", "node", "c2", "zone=zone-3")
	s.cutOff(service)
}

// inPods asks a thousand times from a pod of zone-1.
func (s *scene) inPods() {
	s.Helper()
	out := s.s1.Kubectl("exec", s.pod("deploymentgrid-demo-zone-1"), "--", "sh", "-c", "for i in $(seq 1000); do wget -q -O- http://open-svc; done")
	if got := count(out, 1000); got["zone-1"] != 1000 {
		s.Errorf("1000 requests of a pod in zone-1 were answered by %v", got)
	}
}

// busy is a grid whose pods take the CPU that they get, without a number of replicas, and an autoscaler for one unit of it.
const busy = `
apiVersion: superedge.io/v1
kind: DeploymentGrid
metadata: {name: busy, namespace: default}
spec:
  gridUniqKey: zone
  template:
    selector: {matchLabels: {app: busy}}
    template:
      metadata: {labels: {app: busy}}
      spec:
        terminationGracePeriodSeconds: 1
        containers:
        - name: c
          image: nginx:1.7.9
          command: [sh, -c, "while :; do :; done"]
          env: [{name: ROUND, value: "%d"}]
          resources: {requests: {cpu: 10m}, limits: {cpu: 40m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy, namespace: default}
spec:
  minReplicas: 1
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy-zone-3}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`

// autoscale lets a unit grow by its CPU alone; an update of the grid leaves the number.
func (s *scene) autoscale() {
	s.Helper()
	s.s1.Apply(fmt.Sprintf(busy, 1))
	begin := time.Now()
	s.lab.Await("the autoscaler", 5*time.Minute, func() error {
		if got := s.get("deployment", "busy-zone-3", "{.spec.replicas}"); got != "3" {
			return fmt.Errorf("%s replicas: %s", got, s.get("hpa", "busy", "{.status}"))
		}
		return nil
	})
	s.Logf("the autoscaler set 3 replicas after %s", time.Since(begin).Round(time.Second))
	s.s1.Apply(fmt.Sprintf(busy, 2))
	s.s1.AwaitField("deployment", "busy-zone-3", "{.spec.template.spec.containers[0].env[0].value} {.spec.replicas}", "2 3")
	s.s1.AwaitField("deployment", "busy-zone-1", "{.spec.template.spec.containers[0].env[0].value} {.spec.replicas}", "2 1")
	s.s1.Kubectl("delete", "hpa", "busy")
	s.s1.Kubectl("delete", "dg", "busy")
}
