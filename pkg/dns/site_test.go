package dns

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	miekg "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// binary is the built kedge, whose control plane is the real API.
const binary = "../../bin/kedge"

// startSite starts a control plane without a node in the test's own namespaces. It returns the kubeconfig and a
// function that ends the control plane at once.
func startSite(t *testing.T) (kubeconfig string, kill func()) {
	t.Helper()
	addUplink(t)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	kubeconfig = filepath.Join(dir, "admin.yaml")
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && exec "$0" "$@"`,
		binary, "server", "--disable-agent", "--data-dir", filepath.Join(dir, "data"), "--write-kubeconfig", kubeconfig)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { _, _ = cmd.Process.Kill(), cmd.Wait() }
	t.Cleanup(kill)
	await(t, "the control plane", func() bool {
		text, _ := os.ReadFile(log.Name())
		return strings.Contains(string(text), "msg=ready ")
	})
	return kubeconfig, kill
}

// addUplink gives the namespace an address and a default route, which a control plane looks for.
func addUplink(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	up := &netlink.Bridge{LinkAttrs: attrs}
	addr, err := netlink.ParseAddr("192.168.77.2/24")
	if err == nil {
		err = errors.Join(netlink.LinkAdd(up), netlink.LinkSetUp(up), netlink.AddrAdd(up, addr),
			netlink.RouteAdd(&netlink.Route{Gw: addr.IP.Mask(addr.Mask), LinkIndex: up.Index}))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRealSite follows real Services, and goes on answering when the API has died.
func TestRealSite(t *testing.T) {
	if _, err := os.Stat(binary); err != nil {
		t.Skip("needs bin/kedge")
	}
	if !inOwnNetwork(t) {
		return
	}
	kubeconfig, kill := startSite(t)
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	api := kubernetes.NewForConfigOrDie(rc)
	d := startDNS(t, kubeconfig, "")
	awaitAnswer(t, "kubernetes.default.svc.cluster.local", "10.43.0.1")

	made, err := api.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "plc"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "modbus", Port: 502}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, "plc.default.svc.cluster.local", made.Spec.ClusterIP)
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: customName},
		Data:       map[string]string{"site.override": "rewrite name plc.site plc.default.svc.cluster.local"},
	}
	if _, err := api.CoreV1().ConfigMaps(customNamespace).Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, "plc.site", made.Spec.ClusterIP)

	kill()
	outside(t, "127.0.0.9:53", "10.9.9.9")
	if err := os.WriteFile(d.conf, []byte("nameserver 127.0.0.9\n"), 0o644); err != nil { // rebuilds the server
		t.Fatal(err)
	}
	awaitAnswer(t, "www.example.org", "10.9.9.9")
	for _, name := range []string{"plc.default.svc.cluster.local", "plc.site", "kubernetes.default.svc.cluster.local"} {
		if rcode, got := ask(t, "udp", "10.43.0.10", name, miekg.TypeA); rcode != miekg.RcodeSuccess || got == "" {
			t.Errorf("%s without the API: %s %q", name, miekg.RcodeToString[rcode], got)
		}
	}
}
