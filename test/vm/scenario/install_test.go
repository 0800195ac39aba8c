package scenario

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/vm"
	"github.com/kedge-io/kedge/test/vm/control"
	"github.com/kedge-io/kedge/test/vm/disk"
)

const (
	serverAddress = "10.90.1.11"
	agentAddress  = "10.90.1.12"
	// installPods are the pods of testdata/install.yaml on two machines.
	installPods = 3
	// timedOut is what systemd says about processes that ignored its signal for 90 s.
	timedOut = "Stopping timed out"
)

// wwwUnit is the web server with the releases.
const wwwUnit = `[Service]
ExecStart=/root/busybox httpd -f -p 80 -h /root/www
Restart=always
[Install]
WantedBy=multi-user.target
`

// installed is the scenario: two machines on a segment that leads nowhere, one of them with a web server that has two releases.
type installed struct {
	t             *testing.T
	server, agent *vm.Guest
	api           *api
	first, second string            // versions
	clean         map[string]string // by host name: what the machine was like before
}

// TestInstall installs a site with install.sh on two machines, from a web server of their own and without any other network: both come back
// from a power cut and from an orderly power-off, a second run changes nothing, an upgrade leaves the pods alone, and
// after the removal nothing is left.
func TestInstall(t *testing.T) {
	vm.Require(t)
	s := newInstalled(t)
	s.install()
	s.powerCycle()
	if os.Getenv("KEDGE_VM_OFFLINE") != "" { // ten more pods: a host that is busy with other things is too slow for them
		s.offlineReboot()
	}
	s.installAgain()
	s.upgrade()
	s.remove(s.agent, "kedge-agent")
	s.remove(s.server, "kedge")
}

func newInstalled(t *testing.T) *installed {
	t.Helper()
	release, first, second := makeReleases(t)
	seg := vm.NewSegment(t)
	guest := func(name, address string, memory int, files map[string]string) *vm.Guest {
		files["/root/busybox.tar"] = busyboxArchive(t)
		// One processor each: two guests keep both of the host's busy anyway, and the emulator can leave two of one guest in a loop on a
		// breakpoint that the kernel has taken back, as happened while code was patched that both ran.
		g := vm.New(t, vm.Config{Name: name, CPUs: 1, MemMiB: memory, Uplink: vm.NoUplink, Files: files, NICs: []vm.NIC{{Segment: seg, Address: address + "/24"}}})
		g.Start()
		return g
	}
	www := map[string]string{"/root/busybox": "/bin/busybox"}
	for _, file := range releaseFiles(t, release) {
		www["/root/www/"+file] = filepath.Join(release, file)
	}
	s := &installed{t: t, first: first, second: second, clean: map[string]string{}}
	s.server = guest("site", serverAddress, 3072, www)
	s.agent = guest("node", agentAddress, 1536, map[string]string{})
	for _, g := range s.guests() {
		t.Logf("boot: %v", short(g.AwaitBoot()))
	}
	s.server.WriteFile("/etc/systemd/system/www.service", 0o644, wwwUnit)
	s.server.MustRun("systemctl daemon-reload && systemctl enable -q --now www.service")
	for _, g := range s.guests() {
		s.clean[g.MustRun("hostname")] = traces(g)
	}
	return s
}

func (s *installed) guests() []*vm.Guest { return []*vm.Guest{s.server, s.agent} }

// makeReleases makes a folder with two releases of the binary, which differ in their version, and returns the versions.
func makeReleases(t *testing.T) (dir, first, second string) {
	t.Helper()
	path := os.Getenv("KEDGE_BINARY")
	if path == "" {
		path = builtBinary
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("build the binary first (make build): %v", err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	first = strings.TrimSuffix(strings.Fields(string(out))[1], ",")
	// The same program that calls itself another version: building one would take minutes and show no more.
	second = first[:len(first)-1] + "9"
	dir = t.TempDir()
	for version, content := range map[string][]byte{first: program, second: bytes.ReplaceAll(program, []byte(first), []byte(second))} {
		sub := filepath.Join(dir, "download", version)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "kedge-amd64"), content, 0o755); err != nil {
			t.Fatal(err)
		}
		pack := exec.CommandContext(t.Context(), "../../../scripts/pack-release.sh", sub)
		pack.Env = append(os.Environ(), "ZSTD_LEVEL=0", "XZ_LEVEL=0", "GZIP_LEVEL=1")
		if text, err := pack.CombinedOutput(); err != nil {
			t.Fatalf("pack the release: %v\n%s", err, text)
		}
	}
	return dir, first, second
}

// releaseFiles are the files that a machine without zstd and xz gets, and the checksums.
func releaseFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.gz", "sha256sums.txt", "install.sh"} {
		found, err := filepath.Glob(filepath.Join(dir, "download", "*", pattern))
		if err != nil || len(found) != 2 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		for _, f := range found {
			files = append(files, strings.TrimPrefix(f, dir+"/"))
		}
	}
	return files
}

// curl is the line that a user pastes, for one of the versions.
func (s *installed) curl(version, settings string) string {
	return fmt.Sprintf("set -o pipefail; curl -sfL http://%[1]s/download/%[2]s/install.sh | INSTALL_KEDGE_BASE_URL=http://%[1]s INSTALL_KEDGE_VERSION='%[2]s' %[3]s sh -",
		serverAddress, version, settings)
}

// run runs install.sh on a guest and returns what it said.
func (s *installed) run(g *vm.Guest, version, settings string) string {
	s.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), siteTimeout)
	defer cancel()
	var out bytes.Buffer
	err := g.Exec(ctx, control.Command{Argv: []string{"bash", "-c", s.curl(version, settings)}, Stdout: &out, Stderr: &out})
	s.t.Logf("install.sh on %s, %v:\n%s", g.MustRun("hostname"), short(time.Since(begin)), out.String())
	if err != nil {
		s.t.Fatalf("install.sh: %v", err)
	}
	// On a starved host install.sh stops waiting before kedge is ready.
	await(s.t, "the service is up", siteTimeout, func(context.Context) error {
		_, err := g.Run("kedge status")
		return err
	})
	return out.String()
}

// asAgent are the agent's settings.
func (s *installed) asAgent() string {
	token := s.server.MustRun("cat /var/lib/kedge/server/agent-token")
	return fmt.Sprintf("K3S_URL=https://%s:6443 K3S_TOKEN='%s'", serverAddress, token)
}

func (s *installed) install() {
	s.t.Helper()
	for _, g := range s.guests() {
		g.MustRun("mkdir -p /var/lib/kedge/agent/images && cp /root/busybox.tar /var/lib/kedge/agent/images/")
	}
	s.server.MustRun("mkdir -p /var/lib/kedge/server/manifests")
	manifest, err := os.ReadFile("testdata/install.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	s.server.WriteFile("/var/lib/kedge/server/manifests/web.yaml", 0o644, string(manifest))
	s.run(s.server, s.first, "")
	s.api = newAPI(s.t, s.server)
	s.run(s.agent, s.first, s.asAgent())
	s.awaitPods(time.Time{})
	for _, g := range s.guests() {
		unit := g.MustRun("systemctl show -p WatchdogUSec -p Type -p Delegate -p KillMode --value 'kedge*.service'")
		s.t.Logf("unit: %s", strings.ReplaceAll(unit, "\n", ", "))
		if mode := g.MustRun("stat -c %a /etc/systemd/system/kedge*.service.env"); mode != "600" {
			s.t.Errorf("the environment file has mode %s", mode)
		}
	}
}

// awaitPods waits until both nodes are Ready in their present boot and all containers have started after since, and returns
// the containers' identities.
func (s *installed) awaitPods(since time.Time) string {
	s.t.Helper()
	boots := map[string]bool{}
	for _, g := range s.guests() {
		boots[g.MustRun("cat /proc/sys/kernel/random/boot_id")] = true
	}
	var ids string
	await(s.t, "both nodes Ready and the pods Running", siteTimeout, func(ctx context.Context) (err error) {
		if err := s.nodesReady(ctx, boots); err != nil {
			return err
		}
		ids, err = s.containers(ctx, since)
		return err
	})
	return ids
}

func (s *installed) nodesReady(ctx context.Context, boots map[string]bool) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []condition
				NodeInfo   struct{ BootID string }
			}
		}
	}
	if err := s.api.do(ctx, http.MethodGet, "/api/v1/nodes", nil, &list); err != nil {
		return err
	}
	ready := 0
	for _, n := range list.Items {
		if boots[n.Status.NodeInfo.BootID] && isTrue(n.Status.Conditions, "Ready") {
			ready++
		}
	}
	if ready != len(boots) {
		return fmt.Errorf("%d of %d nodes are Ready", ready, len(boots))
	}
	return nil
}

// containers is a line for each container: pod, container, identity; an error unless all of them run since then.
func (s *installed) containers(ctx context.Context, since time.Time) (string, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions        []condition
				ContainerStatuses []struct {
					Name, ContainerID string
					State             struct {
						Running *struct{ StartedAt time.Time }
						Waiting *struct{ Reason, Message string }
					}
				}
			}
		}
	}
	if err := s.api.do(ctx, http.MethodGet, "/api/v1/namespaces/default/pods?labelSelector=scenario%3Dinstall", nil, &list); err != nil {
		return "", err
	}
	var ids []string
	for _, p := range list.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running == nil || c.State.Running.StartedAt.Before(since) {
				return "", fmt.Errorf("container %s of %s: %+v", c.Name, p.Metadata.Name, c.State)
			}
			ids = append(ids, p.Metadata.Name+" "+c.Name+" "+c.ContainerID)
		}
		if !isTrue(p.Status.Conditions, "Ready") {
			return "", fmt.Errorf("pod %s is not Ready: %+v", p.Metadata.Name, p.Status.Conditions)
		}
	}
	if len(list.Items) != installPods {
		return "", fmt.Errorf("%d pods, want %d", len(list.Items), installPods)
	}
	return strings.Join(ids, "\n"), nil
}

// powerCycle cuts the server's power and powers the agent off in order, although a pod there ignores that it is to end.
func (s *installed) powerCycle() {
	s.t.Helper()
	off := time.Now()
	s.agent.Shutdown()
	s.t.Logf("powered off in order after %v", short(time.Since(off)))
	console, err := os.ReadFile(filepath.Join(s.agent.LogDir(), "serial.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	if text := string(console); strings.Contains(text, timedOut) || !strings.Contains(text, "Stopping kedge-agent.service") {
		s.t.Errorf("pods that ignore it held the power-off up, or the console does not tell: %s", s.agent.LogDir())
	}
	s.server.PowerCut(disk.LoseSome)
	s.api.http.CloseIdleConnections()
	on := time.Now()
	for _, g := range s.guests() {
		g.Start()
	}
	for _, g := range s.guests() {
		g.AwaitAgent()
	}
	s.awaitPods(on)
	s.t.Logf("power on: both nodes Ready and the pods Running after %v", short(time.Since(on)))
	for _, g := range s.guests() {
		g.AwaitBoot()
	}
}

// installAgain runs install.sh with the same settings: nothing is written, nothing is restarted.
func (s *installed) installAgain() {
	s.t.Helper()
	settings := map[*vm.Guest]string{s.server: "", s.agent: s.asAgent()}
	for _, g := range s.guests() {
		const look = "systemctl show -p MainPID --value 'kedge*.service'; cd / && find usr/local/bin etc -type f | xargs stat -c '%n %Y %i'"
		before := g.MustRun(look)
		out := s.run(g, s.first, settings[g])
		if after := g.MustRun(look); after != before {
			s.t.Errorf("a second run changed something:\n%s", difference(before, after))
		}
		if !strings.Contains(out, "nothing changed") {
			s.t.Error("the second run does not say that nothing changed")
		}
	}
}

// upgrade installs the other release on both: kedge is a new process, the containers are the old ones.
func (s *installed) upgrade() {
	s.t.Helper()
	before := s.awaitPods(time.Time{})
	settings := map[*vm.Guest]string{s.server: "", s.agent: s.asAgent()}
	for _, g := range s.guests() {
		s.run(g, s.second, settings[g])
		if out := g.MustRun("kedge status"); !strings.Contains(out, s.second) {
			s.t.Errorf("after the upgrade to %s: %s", s.second, out)
		}
	}
	s.api.http.CloseIdleConnections()
	if after := s.awaitPods(time.Time{}); after != before {
		s.t.Errorf("the upgrade changed containers:\n%s", difference(before, after))
	}
}
