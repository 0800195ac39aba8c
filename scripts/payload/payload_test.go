package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// built is the directory that scripts/build-payload.sh made, or the test is
// skipped.
func built(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "build", "payload", runtime.GOARCH))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		t.Skip("needs scripts/build-payload.sh: ", err)
	}
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// bareRoot is a directory that holds nft and its libraries and nothing else: no
// /etc, /proc, /lib or shell.
func bareRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"bin/nft", "lib/nft"} {
		to := filepath.Join(root, filepath.Dir(name))
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, exec.Command("cp", "-a", filepath.Join(built(t), name), to))
	}
	return root
}

// TestNftInBareRoot runs what kube-proxy asks of nft where there is nothing but
// nft. What is listed must be what was added, names of protocols included.
func TestNftInBareRoot(t *testing.T) {
	needRoot(t)
	rules, err := os.ReadFile("testdata/rules.nft")
	if err != nil {
		t.Fatal(err)
	}
	// This thread, and what it starts, live in a namespace that ends with it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	root := bareRoot(t)
	nft := func(input string, args ...string) string {
		cmd := exec.Command("/bin/nft", args...)
		cmd.Dir = "/"
		cmd.Env = []string{"LD_PRELOAD=/nonexistent.so", "LD_LIBRARY_PATH=/nonexistent"}
		cmd.Stdin = strings.NewReader(input)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		return run(t, cmd)
	}
	nft(string(rules), "-f", "-")
	out := nft("", "list", "ruleset")
	for _, want := range []string{
		"10.0.0.1 . tcp . 80 : goto service", "10.0.0.1 . udp . 53 : goto service", "10.0.0.9 . sctp . 5 : goto service",
		"ct state new ip daddr . meta l4proto . th dport vmap @services", "fib daddr type local",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nft does not list %q:\n%s", want, out)
		}
	}
}

func TestRuncHasSeccomp(t *testing.T) {
	var features struct {
		Linux struct {
			Seccomp struct{ Enabled bool }
		}
	}
	out := run(t, exec.Command(filepath.Join(built(t), "bin", "runc"), "features"))
	if err := json.Unmarshal([]byte(out), &features); err != nil {
		t.Fatal(err)
	}
	if !features.Linux.Seccomp.Enabled {
		t.Errorf("runc was built without seccomp: %s", out)
	}
}

// TestPrograms starts every program once, as a check that it is whole and static.
func TestPrograms(t *testing.T) {
	bin := filepath.Join(built(t), "bin")
	for name, want := range map[string]string{
		"runc --version":             "runc version",
		"containerd-shim-runc-v2 -v": "Version:",
		"crictl --version":           "crictl version",
		"nft --version":              "nftables v",
		"bridge":                     "CNI bridge plugin", "portmap": "CNI portmap plugin", "loopback": "CNI loopback plugin",
		"kedge-ipam": "kedge-ipam",
	} {
		words := strings.Fields(name)
		cmd := exec.Command(filepath.Join(bin, words[0]), words[1:]...)
		cmd.Env = []string{}
		if out := run(t, cmd); !strings.Contains(out, want) {
			t.Errorf("%s says %s", name, out)
		}
	}
}

// TestMount asks the small mount for what the kubelet asks for, in a mount namespace of its own.
func TestMount(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread() // the thread, and what it starts, live in a namespace that ends with it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir, spare := t.TempDir(), filepath.Join(built(t), "spare")
	look := func(name string) string {
		out, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, " "+filepath.Join(dir, name)+" ") {
				return line
			}
		}
		return ""
	}
	do := func(program string, args ...string) string {
		cmd := exec.Command(filepath.Join(spare, program), args...)
		cmd.Dir = dir
		return run(t, cmd)
	}
	for _, name := range []string{"memory", "bound"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	do("mount", "-t", "tmpfs", "-o", "size=1m,nosuid,mode=700", "tmpfs", "memory")
	if got := look("memory"); !strings.Contains(got, "nosuid") || !strings.Contains(got, "size=1024k,mode=700") {
		t.Errorf("a file system in memory: %q", got)
	}
	do("mount", "--no-canonicalize", "-o", "bind,rshared", "memory", "bound")
	do("mount", "-o", "remount,bind,ro", "memory", "bound")
	if got := look("bound"); !strings.Contains(got, " ro,") || !strings.Contains(got, "shared:") {
		t.Errorf("a directory at a second place, read-only: %q", got)
	}
	do("umount", "bound")
	do("umount", "-l", "memory")
	if left := look("bound") + look("memory"); left != "" {
		t.Errorf("after umount: %q", left)
	}
	cmd := exec.Command(filepath.Join(spare, "umount"), "memory")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil || string(out) != "umount: memory: error 22\n" {
		t.Errorf("what is not mounted: %v, %q", err, out)
	}
}

// TestPauseReapsAndEnds runs pause as process 1 of a namespace.
func TestPauseReapsAndEnds(t *testing.T) {
	needRoot(t)
	program := filepath.Join(t.TempDir(), "pause")
	run(t, exec.Command("sh", "-c", `tar -xOf "$0" --wildcards '*.tar.gz' | tar -xzOf - pause > "$1" && chmod 0755 "$1"`,
		filepath.Join(built(t), "images", "pause.tar"), program))
	// The shell becomes pause; its orphan ends under pause, which must reap it.
	cmd := exec.Command("sh", "-c", `(exec sleep 0.05 & echo started; exit) ; exec "$0"`, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitNoChildren(t, cmd.Process.Pid, program)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("pause ended with %v after TERM", err)
	}
}

// awaitNoChildren waits until a process runs program and has no children, living
// or dead.
func awaitNoChildren(t *testing.T, pid int, program string) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		exe, _ := os.Readlink(filepath.Join(proc, "exe"))
		children, err := os.ReadFile(filepath.Join(proc, "task", strconv.Itoa(pid), "children"))
		if err != nil {
			t.Fatal(err)
		}
		if exe == program && len(children) == 0 {
			return
		}
		<-tick.C
	}
	t.Fatal("after 5 s pause still has children that have ended")
}
