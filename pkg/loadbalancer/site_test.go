package loadbalancer

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	conflict "k8s.io/client-go/util/retry"

	"github.com/kedge-io/kedge/test/plane"
)

// TestRealSite publishes Services of a real API at the addresses of nodes that come and go.
func TestRealSite(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	kubeconfig := plane.Start(t, "--disable", "servicelb").Kubeconfig
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	api := kubernetes.NewForConfigOrDie(rc)
	c, err := New(Config{Kubeconfig: kubeconfig, ReservedPorts: []int32{22}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	runUntilEnd(t, c)
	plane.Await(t, "the controller", func() bool { return c.Ready(ctx) == nil })

	service := func(name string) *corev1.Service {
		s, err := api.CoreV1().Services("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	at := func(name string, want ...string) {
		t.Helper()
		plane.Await(t, name+" at "+strings.Join(want, " "), func() bool {
			return strings.Join(published(service(name)), " ") == strings.Join(want, " ")
		})
	}
	create := func(s *corev1.Service) {
		t.Helper()
		if _, err := api.CoreV1().Services("default").Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	addNode(t, api, "a", "10.0.0.1")
	create(balanced("web", 0, 80))
	at("web", "10.0.0.1")
	addNode(t, api, "b", "10.0.0.2")
	at("web", "10.0.0.1", "10.0.0.2")
	create(balanced("second", 0, 80))
	create(balanced("ssh", 0, 22))
	if err := api.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	at("web", "10.0.0.2")
	if got := append(published(service("second")), published(service("ssh"))...); len(got) != 0 {
		t.Errorf("refused Services are published at %q", got)
	}
	if err := api.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	at("second", "10.0.0.2")
}

func runUntilEnd(t *testing.T, c *Controller) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// addNode makes a ready node.
func addNode(t *testing.T, api kubernetes.Interface, name, ip string) {
	t.Helper()
	n := node(name, true, nil, in(ip))
	nodes := api.CoreV1().Nodes()
	if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: n.ObjectMeta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The control plane's own controllers write to a new node too.
	if err := conflict.RetryOnConflict(conflict.DefaultBackoff, func() error {
		made, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		made.Status = n.Status
		_, err = nodes.UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
