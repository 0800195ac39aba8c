package check

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func want(t *testing.T, what string, r Result, o Outcome, detail string) {
	t.Helper()
	if r.Outcome != o || !strings.Contains(r.Detail, detail) {
		t.Errorf("%s: got %+v, want %s %q", what, r, o, detail)
	}
	if (r.Fix == "") != (r.Outcome == Pass) {
		t.Errorf("%s: a fix belongs to everything but a pass: %+v", what, r)
	}
}

func TestJudgeClock(t *testing.T) {
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	built := day("2026-11-20")
	for _, tc := range []struct {
		what                  string
		now, built, authority time.Time
		outcome               Outcome
		detail                string
	}{
		{"right", day("2026-12-01"), built, day("2026-11-25"), Pass, "2026-12-01"},
		{"first start", day("2026-12-01"), built, time.Time{}, Pass, ""},
		{"no battery", day("1970-01-01"), built, time.Time{}, Fail, "before this kedge was built (2026-11-20"},
		{"time zone trouble", day("2026-11-19"), built, time.Time{}, Pass, ""},
		{"before the authority", day("2026-12-01"), built, day("2026-12-05"), Fail, "before the cluster's certificate authority was made"},
		{"unstamped", day("2020-01-01"), time.Time{}, time.Time{}, Fail, "cannot be true"},
	} {
		want(t, tc.what, judgeClock(tc.now, tc.built, tc.authority), tc.outcome, tc.detail)
	}
}

func TestJudgeDisk(t *testing.T) {
	const gib = 1 << 30
	want(t, "plenty", judgeDisk("/d", 50*gib, 100*gib, 1e6, 1e6), Pass, "51200 MiB of 102400 MiB free")
	want(t, "full", judgeDisk("/d", 1<<20, 100*gib, 1e6, 1e6), Fail, "1 MiB of")
	want(t, "little", judgeDisk("/d", gib, 4*gib, 1e6, 1e6), Warn, "little")
	want(t, "nearly full", judgeDisk("/d", 10*gib, 100*gib, 1e6, 1e6), Warn, "15 %")
	want(t, "no inodes", judgeDisk("/d", 50*gib, 100*gib, 3, 1e6), Fail, "3 inodes")
	want(t, "btrfs counts no inodes", judgeDisk("/d", 50*gib, 100*gib, 0, 0), Pass, "")
}

func TestJudgeHost(t *testing.T) {
	want(t, "kernel", judgeKernel("6.1.0-18-amd64"), Pass, "6.1.0")
	want(t, "old kernel", judgeKernel("5.10.0"), Fail, "too old")
	want(t, "5.13", judgeKernel("5.13"), Pass, "")
	want(t, "odd kernel", judgeKernel("x"), Warn, "")
	want(t, "root", judgeCapabilities(1<<41-1), Pass, "")
	want(t, "container", judgeCapabilities(0xa80425fb), Fail, "CAP_SYS_ADMIN, CAP_NET_ADMIN")
	want(t, "no resource", judgeCapabilities(1<<41-1-1<<unix.CAP_SYS_RESOURCE), Warn, "CAP_SYS_RESOURCE")
	want(t, "inotify", judgeInotify(128, 8192), Warn, "128 instances")
	want(t, "inotify", judgeInotify(1024, 524288), Pass, "")
	want(t, "small", judgeMemory(500*1024, 0), Warn, "500 MiB")
	want(t, "large", judgeMemory(4000*1024, 0), Pass, "")
}

func TestFilesOfSettings(t *testing.T) {
	there := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, there, "")
	want(t, "there", checkFiles(Config{Files: map[string]string{"resolv-conf": there, "datastore-cafile": ""}}, nil), Pass, "")
	missing := Config{Files: map[string]string{"a": there, "resolv-conf": "/nowhere/resolv.conf"}}
	want(t, "missing", checkFiles(missing, nil), Fail, "--resolv-conf: open /nowhere/resolv.conf: no such file")
}

func TestCgroups(t *testing.T) {
	root := t.TempDir()
	want(t, "none", judgeCgroups(readCgroups(root)), Fail, "no cgroups")
	for _, c := range []string{"cpu", "cpuset", "pids"} {
		if err := os.MkdirAll(filepath.Join(root, c), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, c, "cgroup.procs"), "")
	}
	want(t, "Raspberry Pi", judgeCgroups(readCgroups(root)), Fail, "memory is missing")
	want(t, "v1", judgeCgroups(cgroups{1, []string{"cpu", "cpuset", "memory", "pids"}}), Warn, "version 1")
	write(t, filepath.Join(root, "cgroup.controllers"), "cpuset cpu io memory hugetlb pids\n")
	want(t, "v2", judgeCgroups(readCgroups(root)), Pass, "version 2 with cpuset, cpu")
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPortInUseNamesTheProcess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	cfg := Config{Port: port, BindAddress: netip.MustParseAddr("127.0.0.1")}
	r := checkPorts(cfg, nil)
	want(t, "in use", r, Fail, "port "+strconv.Itoa(port)+" for the API is in use by check.test (pid "+strconv.Itoa(os.Getpid())+")")
	cfg.BindAddress = netip.Addr{} // every address, of which one is taken
	want(t, "in use", checkPorts(cfg, nil), Fail, "is in use")
	cfg.BindAddress = netip.MustParseAddr("127.0.0.1")
	want(t, "in use by the kedge that runs here", checkPort(listeners(cfg)[0], os.Getpid()), Pass, "runs here")
	cfg.BindAddress = netip.MustParseAddr("192.0.2.1")
	want(t, "foreign address", checkPorts(cfg, nil), Fail, "192.0.2.1 is not an address of this machine")
}

func TestListenersFollowTheParts(t *testing.T) {
	if n := len(listeners(Config{Port: 6443, Node: true, KubeProxy: true})); n != 6 {
		t.Errorf("server: %d", n)
	}
	if ls := listeners(Config{Node: true}); len(ls) != 2 || ls[0].addr.Port() != 10250 || ls[1].addr.Port() != 6444 {
		t.Errorf("agent without kube-proxy: %v", ls)
	}
}

func TestPreflightOnThisMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	_, err := Preflight(Config{DataDir: dir, Node: true, KubeProxy: true, Snapshotter: "native"})
	if err != nil && !strings.HasPrefix(err.Error(), "ports: ") {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
	for _, r := range Run(Config{DataDir: dir, Node: true, KubeProxy: true, Snapshotter: "overlayfs"}) {
		t.Logf("%-22s %-4s %s (%s)", r.Name, r.Outcome, r.Detail, r.Fix)
		if r.Name == "" || r.Detail == "" || (r.Fix == "") != (r.Outcome == Pass) {
			t.Errorf("incomplete row %+v", r)
		}
	}
}

func TestProbesLeaveTheProcessWhereItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	where := func() string {
		net, errNet := os.Readlink("/proc/self/ns/net")
		mnt, errMnt := os.Readlink("/proc/self/ns/mnt")
		if errNet != nil || errMnt != nil {
			t.Fatal(errNet, errMnt)
		}
		return net + mnt
	}
	before := where()
	for range 30 {
		probeKernel(Config{DataDir: t.TempDir()})
		if after := where(); after != before {
			t.Fatalf("the main thread moved from %s to %s", before, after)
		}
	}
}

func TestPreflightJoinsFailures(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	_, err := Preflight(Config{DataDir: filepath.Join(file, "data"), Built: time.Now().Add(48 * time.Hour)})
	if err == nil || !strings.Contains(err.Error(), "data directory: ") || !strings.Contains(err.Error(), "\nclock: ") {
		t.Errorf("%v", err)
	}
}
