// Package plane runs the control plane of the built kedge for the part tests of features that need a real API: no node, no containers, and
// namespaces of the test's own. Tests may import it; the product never does.
package plane

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kedge-io/kedge/test/built"
)

// variable names, in the environment of a test's own process, the test it is for.
const variable = "KEDGE_TEST_NAMESPACES"

// Isolated runs the calling test again in a process with network and mount namespaces of its own and says whether the caller is that
// process; the other returns from its test. It skips unless it is root.
func Isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err := errors.Join(err, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// Plane is a running control plane.
type Plane struct {
	// Kubeconfig is the administrator's.
	Kubeconfig string

	cmd *exec.Cmd
	log string
}

// Start runs kedge server without a node, with more arguments, in the namespaces of Isolated, and waits until it is ready. It skips
// where the binary is not built. The end of the test ends it; its log is in the test's when that failed.
func Start(t *testing.T, args ...string) *Plane {
	t.Helper()
	binary, err := built.Kedge()
	if err != nil {
		t.Skip(err)
	}
	if err := errors.Join(addUplink(), syscall.Mount("tmpfs", "/run", "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &Plane{Kubeconfig: filepath.Join(dir, "admin.yaml"), log: filepath.Join(dir, "log")}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, append([]string{"server", "--disable-agent", "--data-dir", filepath.Join(dir, "data"), "--write-kubeconfig", p.Kubeconfig}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("control plane:\n%s", p.Log())
		}
	})
	Await(t, "the control plane", func() bool { return strings.Contains(p.Log(), "msg=ready ") })
	return p
}

// Kill ends the control plane at once.
func (p *Plane) Kill() { _, _ = p.cmd.Process.Kill(), p.cmd.Wait() }

// Log is what the control plane has written.
func (p *Plane) Log() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// addUplink gives the namespace an address and a default route, which a control plane looks for.
func addUplink() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	up := &netlink.Bridge{LinkAttrs: attrs}
	addr, err := netlink.ParseAddr("192.168.77.2/24")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkAdd(up), netlink.LinkSetUp(up), netlink.AddrAdd(up, addr),
		netlink.RouteAdd(&netlink.Route{Gw: addr.IP.Mask(addr.Mask), LinkIndex: up.Index}))
}

// Await waits until something is so, for two minutes at most: the machine may be busy with other tests.
func Await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
