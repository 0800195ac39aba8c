package metrics

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// busy is a Deployment that burns the CPU it gets, and an autoscaler for it.
const busy = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      nodeName: %s
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 20m}, limits: {cpu: 100m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  minReplicas: 1
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
`

func TestTopAndAutoscaler(t *testing.T) {
	l := lab.New(t)
	shop, farm := l.AddSite("shop"), l.AddSiteBehindNAT("farm")
	s1 := shop.AddNode("s1", lab.Server())
	s1.AddBusybox()
	s1.Start()
	s1.AwaitReady()
	f1 := farm.AddAgent("f1", s1)
	f1.AddBusybox()
	f1.Start()
	s1.AwaitNodes("s1", "f1")
	s1.Apply(fmt.Sprintf(busy, "f1"))

	l.Await("usage of both nodes", 2*time.Minute, func() error {
		out, err := s1.TryKubectl("top", "nodes", "--no-headers")
		return says(out, err, "s1 ", "f1 ")
	})
	l.Await("usage of the busy pod", 2*time.Minute, func() error {
		out, err := s1.TryKubectl("top", "pods", "--no-headers", "-l", "app=busy")
		return says(out, err, "busy-", "m", "Mi")
	})
	l.Await("scaling on CPU", 4*time.Minute, func() error {
		out, err := s1.TryKubectl("get", "deployment", "busy", "-o", "jsonpath=replicas={.spec.replicas}")
		return says(out, err, "replicas=3")
	})
	t.Log(s1.Kubectl("top", "nodes"))
	t.Log(s1.Kubectl("top", "pods", "--containers"))
	for _, one := range [][]string{
		{"NAME", "s1", "CPU"}, {"NAME", "busy-", "WINDOW"},
	} {
		what := "nodes.metrics.k8s.io"
		if one[1] != "s1" {
			what = "pods.metrics.k8s.io"
		}
		if err := says(s1.Kubectl("get", what), nil, one...); err != nil {
			t.Errorf("kubectl get %s: %v", what, err)
		}
	}
	if _, err := s1.TryKubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes", "--as=nobody"); err == nil || !strings.Contains(err.Error(), "orbidden") {
		t.Errorf("a stranger reads usage: %v", err)
	}
	if log := s1.Log(); strings.Contains(log, "level=ERROR") {
		t.Errorf("log of s1:\n%s", log)
	}
	disabled(t, s1)
}

// disabled starts the server again without the add-on: the API must be gone.
func disabled(t *testing.T, s1 *lab.Node) {
	t.Helper()
	s1.Exec("sh", "-c", "mkdir -p /etc/kedge; echo 'disable: metrics-server' >/etc/kedge/config.yaml")
	s1.Stop()
	s1.Start()
	s1.AwaitReady()
	if out, err := s1.TryKubectl("get", "apiservice", "v1beta1.metrics.k8s.io"); err == nil {
		t.Errorf("the APIService is still there: %s", out)
	}
	if out, err := s1.TryKubectl("top", "nodes"); err == nil {
		t.Errorf("kubectl top works with the add-on disabled: %s", out)
	}
}

func says(out string, err error, want ...string) error {
	if err != nil {
		return err
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			return errors.New("it says: " + strings.TrimSpace(out))
		}
	}
	return nil
}
