package grid

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// far is a grid of units without pods, and a Service whose only endpoint is said to be on a node of another unit. It is the API server, so
// that whoever comes through is answered.
const far = `
apiVersion: superedge.io/v1
kind: DeploymentGrid
metadata: {name: web, namespace: default}
spec:
  gridUniqKey: zone
  template:
    replicas: 0
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec: {containers: [{name: c, image: "kedge.local/none:1"}]}
---
apiVersion: superedge.io/v1
kind: ServiceGrid
metadata: {name: web, namespace: default}
spec: {gridUniqKey: zone, template: {selector: {app: web}, ports: [{port: 80}]}}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: default, annotations: {topologyKeys: '["zone"]'}}
spec: {clusterIP: 10.43.7.7, ports: [{port: 443, targetPort: 6443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far, namespace: default, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{port: 6443}]
endpoints: [{addresses: ["%s"], nodeName: elsewhere, conditions: {ready: true}}]
`

// TestDisabled switches grids off on a site that has some: kinds, grids, workloads and Services go, and the node closes no traffic.
func TestDisabled(t *testing.T) {
	l := lab.New(t)
	s := &scene{T: t, lab: l, s1: l.AddSite("office").AddNode("s1", lab.Server("--node-label", "zone=zone-1"))}
	s.s1.Start()
	s.s1.AwaitReady()
	s.s1.Apply(fmt.Sprintf(far, s.s1.IP()))
	s.s1.AwaitField("deployment", "web-zone-1", "{.spec.replicas}", "0")
	s.s1.AwaitField("service", "web-svc", "{.metadata.name}", "web-svc")
	knock := func() string {
		out, err := s.s1.Run("curl", "-sk", "--max-time", "20", "https://10.43.7.7")
		return fmt.Sprint(out, err)
	}
	l.Await("the unit to refuse", 2*time.Minute, func() error {
		if got := knock(); !strings.Contains(got, "exit status 7") {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})

	s.s1.Exec("sh", "-c", "mkdir -p /etc/kedge; echo 'disable: grid' >/etc/kedge/config.yaml")
	s.s1.Stop()
	s.s1.Start()
	s.s1.AwaitReady()
	l.Await("kinds, workloads and Services to go", 3*time.Minute, func() error {
		left := s.s1.Kubectl("get", "deployments,services,crds", "-o", "name", "--ignore-not-found")
		for _, gone := range []string{"superedge.io", "tkeedge.io", "openyurt.io", "web"} {
			if strings.Contains(left, gone) {
				return fmt.Errorf("there are %s", left)
			}
		}
		return nil
	})
	l.Await("an answer from the other unit", 2*time.Minute, func() error {
		if got := knock(); !strings.Contains(got, "orbidden") && !strings.Contains(got, "nauthorized") {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
	status, err := s.s1.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Components {
		if strings.HasPrefix(c.Name, "grid") {
			t.Errorf("%s runs", c.Name)
		}
	}
}
