package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/test/lab"
)

// silent are nodes without a machine that spoke once: their labels and annotations, and what must become of their pods.
func silent() map[string]struct {
	labels, annotations map[string]string
	state               string
	pod                 string // kept, going or gone
} {
	type marks = map[string]string
	return map[string]struct {
		labels, annotations map[string]string
		state, pod          string
	}{
		"plain":     {nil, nil, "Expired", "going"},
		"edge":      {marks{"node-role.kubernetes.io/edge": ""}, nil, "Lost", "kept"},
		"worker":    {marks{"openyurt.io/is-edge-worker": "true"}, nil, "Lost", "kept"},
		"patient":   {nil, marks{"node.openyurt.io/autonomy-duration": "24h"}, "Lost", "kept"},
		"for-ever":  {nil, marks{"node.beta.openyurt.io/autonomy": "true"}, "Lost", "kept"},
		"bound":     {nil, marks{"apps.openyurt.io/binding": "true"}, "Expired", "kept"},
		"condemned": {marks{"node-role.kubernetes.io/edge": ""}, marks{"nodeunhealth": "yes"}, "Dead", "gone"},
		"voted":     {marks{"apps.openyurt.io/nodepool": "p", "node-role.kubernetes.io/edge": ""}, nil, "Dead", "gone"},
		"vouched":   {marks{"apps.openyurt.io/nodepool": "p"}, nil, "CutOff", "kept"},
	}
}

func TestPatience(t *testing.T) {
	l := lab.New(t)
	s1 := l.AddSite("shop").AddNode("s1", lab.Server("--disable-agent", "--kube-controller-manager-arg", "node-monitor-grace-period=8s",
		"--kube-controller-manager-arg", "node-startup-grace-period=8s"))
	s1.Start()
	s1.AwaitReady()
	s := &scene{T: t, lab: l, s1: s1}
	var err error
	if s.api, err = s1.Client(); err != nil {
		t.Fatal(err)
	}
	l.Await("the ConfigMap", time.Minute, func() error {
		_, err := s1.TryKubectl("-n", "kube-system", "patch", "configmap", "edge-health-config", "--type", "merge", "-p",
			`{"data":{"lost-after":"8s","autonomy-duration-other":"12s"}}`)
		return err
	})
	for name, n := range silent() {
		s.create(name, n.labels, n.annotations)
	}
	report := map[string]string{"autonomy.kedge.io/neighbours": `{"alive":["vouched"],"gone":["voted"]}`}
	for _, voter := range []string{"voter-1", "voter-2"} {
		s.create(voter, map[string]string{"apps.openyurt.io/nodepool": "p"}, report)
		go speak(t.Context(), s.api, voter)
	}
	for name, n := range silent() {
		s.stands(n.state, name)
		s.await("pod of "+name+" "+n.pod, func() error { return s.fate(name, n.pod) })
	}
	t.Log("and so it stays")
	for end := time.Now().Add(hold); time.Now().Before(end); time.Sleep(time.Second) {
		for name, n := range silent() {
			if err := s.fate(name, n.pod); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if n := s.node("voted"); n.Annotations["nodeunhealth"] != "yes" {
		t.Errorf("SuperEdge's mark is missing: %v", n.Annotations)
	}
}

// create makes a node that seems ready, with a pod that seems ready too and has a second of patience.
func (s *scene) create(name string, labels, annotations map[string]string) {
	s.Helper()
	ctx, now := s.Context(), metav1.Now()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: maps.Clone(labels), Annotations: annotations}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}}
	second := int64(1)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
		NodeName: name, Containers: []corev1.Container{{Name: "main", Image: "none"}}, TerminationGracePeriodSeconds: &second,
		Tolerations: []corev1.Toleration{
			{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &second},
			{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists},
		},
	}}
	if _, err := s.api.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	pod, err := s.api.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	for begin := time.Now(); err != nil && time.Since(begin) < time.Minute; time.Sleep(time.Second) { // the service account comes late
		pod = pod.DeepCopy()
		pod, err = s.api.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := s.api.CoreV1().Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}

// speak renews the lease of a node as its kubelet would.
func speak(ctx context.Context, api kubernetes.Interface, name string) {
	leases := api.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for ; ctx.Err() == nil; time.Sleep(2 * time.Second) {
		now := metav1.NowMicro()
		lease, err := leases.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, _ = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}, metav1.CreateOptions{})
			continue
		}
		if err == nil {
			lease.Spec.RenewTime = &now
			_, _ = leases.Update(ctx, lease, metav1.UpdateOptions{}) // tried again
		}
	}
}

// fate says whether the pod of a node is not as wanted: kept and ready, going, or gone.
func (s *scene) fate(name, want string) error {
	pod, err := s.api.CoreV1().Pods("default").Get(s.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if want == "gone" {
			return nil
		}
		return errors.New("the pod is gone")
	}
	if err != nil {
		return err
	}
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	going := pod.DeletionTimestamp != nil
	if want == "kept" && ready && !going || want == "going" && going {
		return nil
	}
	return fmt.Errorf("ready %t, going %t", ready, going)
}
