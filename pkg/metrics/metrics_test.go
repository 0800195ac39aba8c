package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// answerOfAKubelet has a pod that is measured, one that is measured by half, and the node.
const answerOfAKubelet = `{"node": {"cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1500000000}, "memory": {"workingSetBytes": 1048576}},
"pods": [
 {"podRef": {"name": "whole", "namespace": "n"}, "containers": [
  {"name": "b", "cpu": {"time": "2026-01-01T00:00:02Z", "usageNanoCores": 2000000}, "memory": {"workingSetBytes": 2048}},
  {"name": "a", "cpu": {"time": "2026-01-01T00:00:01Z", "usageNanoCores": 1000000}, "memory": {"workingSetBytes": 1024}}]},
 {"podRef": {"name": "half", "namespace": "n"}, "containers": [
  {"name": "a", "cpu": {"time": "2026-01-01T00:00:01Z", "usageNanoCores": 1000000}, "memory": {"workingSetBytes": 1024}},
  {"name": "new", "cpu": {"time": "2026-01-01T00:00:01Z"}, "memory": {"workingSetBytes": 1024}}]}]}`

func testSample(t *testing.T) *sample {
	t.Helper()
	var s statsapi.Summary
	if err := json.Unmarshal([]byte(answerOfAKubelet), &s); err != nil {
		t.Fatal(err)
	}
	return sampleOf(&s)
}

func TestPodOfAllContainersOrNone(t *testing.T) {
	s := testSample(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "whole", Namespace: "n"}}
	m, ok := podMetrics(pod, s)
	if !ok || len(m.Containers) != 2 || m.Containers[0].Name != "a" || m.Containers[0].Usage.Cpu().String() != "1m" || !m.Timestamp.Time.Equal(time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)) {
		t.Errorf("%t %+v", ok, m)
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if _, ok := podMetrics(pod, s); ok {
		t.Error("a running container is not measured, and the pod is told of")
	}
	if _, ok := podMetrics(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "half", Namespace: "n"}}, s); ok {
		t.Error("half a pod is told of")
	}
	n := nodeMetrics(&corev1.Node{}, *s.node)
	if n.Usage.Cpu().String() != "1500m" || n.Usage.Memory().String() != "1Mi" {
		t.Errorf("node %v", n.Usage)
	}
	rows := table(&metricsv1beta1.PodMetricsList{Items: []metricsv1beta1.PodMetrics{m}}).Rows
	if len(rows) != 1 || rows[0].Cells[1] != "3m" || rows[0].Cells[2] != "3Ki" {
		t.Errorf("%+v", rows)
	}
}

func TestNodesAreAskedOnceAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		u := newUsage(10*time.Second, func(_ context.Context, node string) (*sample, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			if node == "off" {
				return nil, errors.New("not connected")
			}
			return &sample{}, nil
		})
		done := make(chan struct{})
		for range 5 { // together
			go func() {
				samples, errs := u.of(t.Context(), []string{"on", "off"})
				if samples["on"] == nil || errs["off"] == nil {
					t.Errorf("%v, %v", samples, errs)
				}
				done <- struct{}{}
			}()
		}
		for range 5 {
			<-done
		}
		time.Sleep(5 * time.Second)
		u.of(t.Context(), []string{"on"})
		if n := asked.Load(); n != 2 {
			t.Errorf("kubelets were asked %d times, want once each", n)
		}
		time.Sleep(6 * time.Second)
		u.of(t.Context(), []string{"on"})
		if n := asked.Load(); n != 3 {
			t.Errorf("an old answer was given again: %d questions", n)
		}
		time.Sleep(keep*10*time.Second + time.Second)
		if u.mu.Lock(); len(u.nodes) != 0 {
			t.Error("answers are kept for ever")
		}
		u.mu.Unlock()
		cut, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, errs := u.of(cut, []string{"on"}); errs["on"] == nil {
			t.Error("a question went on after its time")
		}
		time.Sleep(time.Second)
	})
}

func TestTableOnlyForThoseWhoPrint(t *testing.T) {
	for accept, want := range map[string]bool{
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json": true,
		"application/vnd.kubernetes.protobuf, */*": false, "application/json": false, "": false,
	} {
		if got := wantsTable(accept); got != want {
			t.Errorf("%q: %t", accept, got)
		}
	}
}
