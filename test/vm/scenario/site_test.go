package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/vm"
	"github.com/kedge-io/kedge/test/vm/disk"
)

const (
	// builtBinary is what make build leaves; KEDGE_BINARY names another one.
	builtBinary = "../../../bin/kedge"
	replicas    = 2
	// ackedWrites are acknowledged before the power goes.
	ackedWrites = 150
	// siteTimeout is for a starved host; an idle one needs a tenth.
	siteTimeout = 15 * time.Minute
)

// TestSite brings up a site on a Debian machine with systemd, runs pods, and cuts the power in the middle of API writes. Power on: it
// comes back by itself with everything it had acknowledged.
func TestSite(t *testing.T) {
	vm.Require(t)
	g := newSite(t)
	t.Logf("first boot, without kedge: %v", short(g.Boot()))
	for _, tool := range []string{"nft", "iptables", "runc", "containerd"} {
		if out, err := g.Run("command -v " + tool); err == nil {
			t.Errorf("the guest has a %s of its own: %s", tool, out)
		}
	}
	started := time.Now()
	g.MustRun("systemctl daemon-reload && systemctl enable -q kedge.service && systemctl start --no-block kedge.service")
	await(t, "READY=1", siteTimeout, func(context.Context) error {
		_, err := g.Run("systemctl is-active kedge.service")
		return err
	})
	t.Logf("empty directory: ready to systemd after %v", short(time.Since(started)))
	await(t, "kedge status", siteTimeout, func(context.Context) error {
		out, err := g.Run("kedge status")
		if err == nil {
			t.Logf("kedge status:\n%s", out)
		}
		return err
	})
	a := newAPI(t, g)
	awaitNode(t, g, a)
	t.Logf("empty directory: node Ready after %v", short(time.Since(started)))
	applied := time.Now()
	g.WriteFile("/root/site.yaml", 0o644, siteManifest(t))
	g.MustRun("kedge kubectl apply -f /root/site.yaml")
	before := awaitPods(t, a, applied.Add(-time.Second))
	t.Logf("%d pods Running after %v", len(before), short(time.Since(applied)))
	checkService(t, g)
	checkCgroups(t, g)

	l := &ledger{objects: map[string]fate{}}
	for round, loss := range []disk.Loss{disk.LoseAll, disk.LoseSome} {
		err := l.write(t.Context(), a, fmt.Sprintf("load-%d", round), 4, l.acked+ackedWrites, func() { g.PowerCut(loss) })
		if err != nil {
			t.Fatal(err)
		}
		before = comeBack(t, g, a, l, before)
	}
	off := time.Now()
	g.Shutdown()
	t.Logf("powered off in order after %v", short(time.Since(off)))
}

// newSite is a machine with kedge, its service file and an image archive.
func newSite(t *testing.T) *vm.Guest {
	t.Helper()
	kedgeBinary := os.Getenv("KEDGE_BINARY")
	if kedgeBinary == "" {
		kedgeBinary = builtBinary
	}
	if _, err := os.Stat(kedgeBinary); err != nil {
		t.Fatalf("build the binary first (make build): %v", err)
	}
	return vm.New(t, vm.Config{Name: "site", MemMiB: 4096, Files: map[string]string{
		"/usr/local/bin/kedge":                    kedgeBinary,
		"/etc/systemd/system/kedge.service":       "testdata/kedge.service",
		"/var/lib/kedge/agent/images/busybox.tar": busyboxArchive(t),
	}})
}

// busyboxArchive is what an airgapped user puts into the images folder.
func busyboxArchive(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "busybox.tar")
	image, err := images.Busybox("/bin/busybox")
	if err == nil {
		err = image.WriteDocker(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// comeBack switches the machine on and watches it recover without any help.
func comeBack(t *testing.T, g *vm.Guest, a *api, l *ledger, before []pod) []pod {
	t.Helper()
	a.http.CloseIdleConnections()
	on := time.Now()
	g.Start()
	agent := g.AwaitAgent()
	awaitNode(t, g, a)
	node := time.Since(on)
	pods := awaitPods(t, a, on)
	t.Logf("power on: user space after %v, node Ready after %v, pods Running after %v", short(agent), short(node), short(time.Since(on)))
	l.verify(t.Context(), t, a)
	old := map[string]bool{}
	for _, p := range before {
		old[p.Metadata.UID] = true
	}
	for _, p := range pods {
		if !old[p.Metadata.UID] {
			t.Errorf("pod %s was made anew", p.Metadata.Name)
		}
	}
	checkService(t, g)
	t.Logf("the boot was complete after %v", short(g.AwaitBoot()))
	if out := g.MustRun("dmesg --level=emerg,alert,crit,err | grep -i -e ext4 -e vda || true"); out != "" {
		t.Errorf("the file system is damaged: %s", out)
	}
	return pods
}

func awaitNode(t *testing.T, g *vm.Guest, a *api) {
	t.Helper()
	boot := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	await(t, "node Ready", siteTimeout, func(ctx context.Context) error {
		return a.nodeReady(ctx, boot)
	})
	if n := g.MustRun("systemctl show -p NRestarts --value kedge.service"); n != "0" {
		// Kubernetes ends itself when its own start takes minutes, as it may on a starved host.
		t.Logf("kedge ended and was started again %s times", n)
	}
}

func awaitPods(t *testing.T, a *api, since time.Time) (pods []pod) {
	t.Helper()
	await(t, "pods Running", siteTimeout, func(ctx context.Context) (err error) {
		pods, err = a.podsRunning(ctx, replicas, since)
		return err
	})
	return pods
}

// checkService asks the pods through the Service's address: kube-proxy works with the nft that kedge brings.
func checkService(t *testing.T, g *vm.Guest) {
	t.Helper()
	await(t, "the Service answers", time.Minute, func(context.Context) error {
		out, err := g.Run("curl -s -m 5 http://10.43.0.80/")
		if err != nil || !strings.HasPrefix(out, "hello from web-") {
			return errors.Join(fmt.Errorf("answer %q", out), err)
		}
		return nil
	})
}

// checkCgroups looks for the pods where the systemd driver puts them on cgroup v2.
func checkCgroups(t *testing.T, g *vm.Guest) {
	t.Helper()
	if kind := g.MustRun("stat -f -c %T /sys/fs/cgroup"); kind != "cgroup2fs" {
		t.Errorf("the guest has %s, not cgroup v2", kind)
	}
	scopes := g.MustRun("find /sys/fs/cgroup/kubepods.slice -name 'cri-containerd-*.scope' | wc -l")
	if scopes == "0" {
		t.Errorf("no container has a scope of systemd's under kubepods.slice:\n%s", g.MustRun("systemd-cgls --no-pager || true"))
	}
	t.Logf("%s containers and sandboxes have scopes under kubepods.slice", scopes)
}

func siteManifest(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "site.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func short(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
