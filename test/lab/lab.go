package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/test/built"
	"github.com/kedge-io/kedge/test/lab/cgroup"
	"github.com/kedge-io/kedge/test/lab/netns"
)

// EnvPayload is the environment variable with the payload directory of a kedge that was built without scripts/build.sh.
const EnvPayload = "KEDGE_PAYLOAD_DIR"

// Lab is a small world of sites. Its methods, and those of what it makes, end the test when they fail, so call them from the test's own
// goroutine; those that return an error may be called from any.
type Lab struct {
	t      testing.TB
	repo   string // root of the repository
	dir    string // of this run
	binary string // kedge
	first  string // program of the machines' first process
	hub    *netns.Namespace
	sites  []*Site
}

// New makes an empty world, or skips the test and says why.
func New(t testing.TB) *Lab {
	t.Helper()
	repo, err := built.Root()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := built.Kedge()
	switch {
	case os.Geteuid() != 0:
		t.Skip("the lab makes namespaces and control groups: run as root")
	case err != nil:
		t.Skip(err)
	}
	l := &Lab{t: t, repo: repo, binary: binary}
	if err := l.prepare(); err != nil {
		t.Fatalf("prepare the lab: %v", err)
	}
	return l
}

// prepare removes what killed runs left, and makes the directory of this run and the hub of its networks.
func (l *Lab) prepare() error {
	base := filepath.Join(l.repo, "build", "lab")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	l.allowWatches()
	unlock, err := lock(filepath.Join(base, "lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeDeadRuns(base); err != nil {
		return err
	}
	l.first = filepath.Join(base, "node")
	if err := buildFirst(l.repo, l.first); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp(base, runPrefix); err != nil {
		return err
	}
	alive, err := lock(filepath.Join(l.dir, "alive"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	l.t.Cleanup(func() { l.clean(alive) })
	l.hub, err = netns.New()
	if err != nil {
		return err
	}
	return l.hub.Sysctl("ipv4/ip_forward", "1")
}

// allowWatches raises how many inotify instances the host's root may have: all machines share it, a server takes about 25 and an agent 10, and
// labs of several packages run beside each other. Where that cannot be, few machines still find room.
func (l *Lab) allowWatches() {
	const limit, enough = "/proc/sys/fs/inotify/max_user_instances", 1024
	text, err := os.ReadFile(limit)
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || n >= enough {
		return
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(enough)), 0); err != nil {
		l.t.Logf("%s is %s, and stays: %v", limit, strings.TrimSpace(string(text)), err)
	}
}

const runPrefix = "run-"

// removeDeadRuns removes directories and control groups of runs whose process is gone. Their machines are gone with it, or
// are just going.
func removeDeadRuns(base string) error {
	runs, err := filepath.Glob(filepath.Join(base, runPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range runs {
		unlock, err := lock(filepath.Join(dir, "alive"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return err
		}
		err = errors.Join(cgroup.Remove(cgroupOf(dir)), os.RemoveAll(dir))
		unlock()
		if err != nil {
			return fmt.Errorf("remove what a killed test left: %w", err)
		}
	}
	return nil
}

// cgroupOf is the control group of a run or, with the node's name, of a machine.
func cgroupOf(dir string, node ...string) string {
	return filepath.Join(append([]string{"kedge-lab-" + filepath.Base(dir)}, node...)...)
}

// lock takes a lock that ends with the process at the latest.
func lock(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// buildFirst compiles the machines' first process unless it is newer than its source. It gets another name first, because an old
// one may be running.
func buildFirst(repo, out string) error {
	fresh, err := newerThan(out, repo, "go.mod", "test/lab/node", "test/lab/machine", "test/lab/cgroup", "test/vm/control")
	if err != nil || fresh {
		return err
	}
	cmd := exec.Command("go", "build", "-o", out+".new", "./test/lab/node")
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build test/lab/node: %w\n%s", err, text)
	}
	return os.Rename(out+".new", out)
}

// newerThan says whether a file is younger than everything in the places below root.
func newerThan(file, root string, places ...string) (bool, error) {
	made, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	fresh := true
	for _, p := range places {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(root, p), func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			fresh = fresh && err == nil && info.ModTime().Before(made.ModTime())
			return err
		}))
	}
	return fresh, err
}

// clean ends everything. It runs after the test and its own cleanups.
func (l *Lab) clean(unlock func()) {
	if l.t.Failed() {
		l.keepLogs()
	}
	var all sync.WaitGroup
	for _, n := range l.nodes() {
		all.Go(n.powerOff)
	}
	all.Wait()
	for _, s := range l.sites {
		if s.uplink.slow != nil {
			_ = s.uplink.slow.Close()
		}
		s.ns.Close()
	}
	if l.hub != nil {
		l.hub.Close()
	}
	if err := errors.Join(cgroup.Remove(cgroupOf(l.dir)), os.RemoveAll(l.dir)); err != nil {
		l.t.Errorf("clean up the lab: %v", err)
	}
	unlock()
}

func (l *Lab) nodes() []*Node {
	var all []*Node
	for _, s := range l.sites {
		all = append(all, s.nodes...)
	}
	return all
}

// clusterCommand shows what a failed test leaves in the cluster.
const clusterCommand = `kedge status; export KUBECTL="kedge kubectl --request-timeout=5s"
$KUBECTL get nodes,pods,services,endpointslices,jobs,pvc,pv -A -o wide; $KUBECTL get events -A; true`

// keepLogs copies every node's logs out of the run's directory.
func (l *Lab) keepLogs() {
	dir := filepath.Join(l.repo, "build", "lab", "logs", strings.ReplaceAll(l.t.Name(), "/", "_"))
	if err := os.RemoveAll(dir); err != nil {
		l.t.Logf("keep logs: %v", err)
	}
	for _, n := range l.nodes() {
		to := filepath.Join(dir, n.name)
		err := errors.Join(os.MkdirAll(to, 0o755), os.CopyFS(to, os.DirFS(filepath.Join(n.state, "var", "log"))))
		if n.isServer() && n.Running() {
			objects, failed := n.Run("sh", "-c", clusterCommand)
			err = errors.Join(err, failed, os.WriteFile(filepath.Join(to, "cluster.txt"), []byte(objects), 0o600))
		}
		if err != nil {
			l.t.Logf("keep logs of %s: %v", n.name, err)
		}
		l.t.Logf("logs of %s: %s\n%s", n.name, to, n.logTail(20))
	}
}

// pollInterval is how often Await looks.
const pollInterval = 100 * time.Millisecond

// Await calls done until it returns nil, and ends the test with its last error when that takes longer than within.
func (l *Lab) Await(what string, within time.Duration, done func() error) {
	l.t.Helper()
	start := time.Now()
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			l.t.Fatalf("%s: not after %v: %v", what, within, err)
		}
		time.Sleep(pollInterval)
	}
}

// must ends the test when a step failed.
func (l *Lab) must(step string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%s: %v", step, err)
	}
}
