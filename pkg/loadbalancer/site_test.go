package loadbalancer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	conflict "k8s.io/client-go/util/retry"
)

// binary is the built kedge, whose control plane is the real API.
const binary = "../../bin/kedge"

// inOwnNetwork runs the calling test in a process with a network namespace of its own, as root, and says whether the
// caller is that process.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv("KEDGE_TEST_NETNS") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skip("needs bin/kedge")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "KEDGE_TEST_NETNS="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// startSite starts a control plane without a node and without its own load balancer, and returns its kubeconfig.
func startSite(t *testing.T) string {
	t.Helper()
	addUplink(t)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	kubeconfig := filepath.Join(dir, "admin.yaml")
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && exec "$0" "$@"`,
		binary, "server", "--disable-agent", "--disable", "servicelb",
		"--data-dir", filepath.Join(dir, "data"), "--write-kubeconfig", kubeconfig)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	await(t, "the control plane", func() bool {
		text, _ := os.ReadFile(log.Name())
		return strings.Contains(string(text), "msg=ready ")
	})
	return kubeconfig
}

// addUplink gives the namespace an address and a default route, which a control plane looks for.
func addUplink(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	up := &netlink.Bridge{LinkAttrs: attrs}
	addr, err := netlink.ParseAddr("192.168.77.2/24")
	lo, loErr := netlink.LinkByName("lo")
	if err == nil && loErr == nil {
		err = errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(up), netlink.LinkSetUp(up), netlink.AddrAdd(up, addr),
			netlink.RouteAdd(&netlink.Route{Gw: addr.IP.Mask(addr.Mask), LinkIndex: up.Index}))
	}
	if err != nil || loErr != nil {
		t.Fatal(err, loErr)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRealSite publishes Services of a real API at the addresses of nodes that come and go.
func TestRealSite(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	kubeconfig := startSite(t)
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
	await(t, "the controller", func() bool { return c.Ready(ctx) == nil })

	service := func(name string) *corev1.Service {
		s, err := api.CoreV1().Services("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	at := func(name string, want ...string) {
		t.Helper()
		await(t, name+" at "+strings.Join(want, " "), func() bool {
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
