package vm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/built"
	"github.com/kedge-io/kedge/test/vm/control"
	"github.com/kedge-io/kedge/test/vm/disk"
)

const (
	// bootTimeout is generous: the processor is emulated and the host may be busy.
	bootTimeout     = 5 * time.Minute
	shutdownTimeout = 4 * time.Minute
	// holdTime is how long a power cut waits for the guest to write something.
	holdTime = 2 * time.Second
)

// Guest is one virtual machine. Its methods fail the test when the machine cannot do what is asked, except where they return an
// error. They are for one goroutine, except Run, Exec, Copy* and Dial, which may run at the same time while the guest is on.
type Guest struct {
	t        testing.TB
	cfg      Config
	img      Image
	disk     *disk.Disk
	logDir   string
	linkDown map[string]bool
	prepared bool                    // Files and NICs are in place
	on       atomic.Pointer[powered] // nil while off
}

// powered is what exists only while the guest is switched on.
type powered struct {
	since   time.Time
	cmd     *exec.Cmd
	monitor *monitor
	control *control.Client
	diskEnd chan error    // the disk server's end
	exited  chan struct{} // qemu is gone, err is set
	err     error
}

// New prepares a guest that is switched off, with a disk that holds BaseImage. Its logs lie in LogDir and stay if the test fails.
func New(t testing.TB, cfg Config) *Guest {
	t.Helper()
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	g := &Guest{t: t, cfg: cfg, img: BaseImage(t), linkDown: map[string]bool{}}
	runDir, err := g.makeDirs()
	if err != nil {
		t.Fatalf("prepare guest %s: %v", cfg.Name, err)
	}
	g.disk, err = disk.New(disk.Config{Base: g.img.Disk, Overlay: filepath.Join(runDir, "overlay"), Seed: cfg.Seed})
	if err != nil {
		t.Fatalf("prepare guest %s: %v", cfg.Name, err)
	}
	t.Cleanup(func() {
		g.cleanUp()
		if err := errors.Join(g.disk.Close(), os.RemoveAll(runDir)); err != nil {
			t.Errorf("remove guest %s: %v", cfg.Name, err)
		}
	})
	return g
}

// makeDirs makes the directory for logs and, locked, the one for the disk, and removes those of test processes that crashed.
func (g *Guest) makeDirs() (string, error) {
	root, err := built.Root()
	if err != nil {
		return "", err
	}
	build := filepath.Join(root, "build", "vm")
	test := filepath.Join(build, "logs", strings.ReplaceAll(g.t.Name(), "/", "_"))
	g.logDir = filepath.Join(fmt.Sprintf("%s-%d", test, os.Getpid()), g.cfg.Name)
	if err := errors.Join(removeOldLogs(test), os.RemoveAll(g.logDir), os.MkdirAll(g.logDir, 0o755)); err != nil {
		return "", err
	}
	unlockRuns, err := lockFile(filepath.Join(build, "run.lock"), syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer unlockRuns()
	dead, _ := filepath.Glob(filepath.Join(build, "run-*"))
	for _, d := range dead {
		unlock, err := lockFile(filepath.Join(d, "lock"), lockTry)
		if err != nil {
			continue // in use
		}
		err = os.RemoveAll(d)
		unlock()
		if err != nil {
			return "", err
		}
	}
	runDir, err := os.MkdirTemp(build, "run-")
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(runDir, "lock"), syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	g.t.Cleanup(unlock)
	return runDir, nil
}

// removeOldLogs removes the logs of earlier runs of a test, but not of one that runs at the same time.
func removeOldLogs(test string) error {
	runs, err := filepath.Glob(test + "-*")
	for _, dir := range runs {
		if _, gone := os.Stat("/proc/" + strings.TrimPrefix(dir, test+"-")); gone != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// LogDir holds serial.log (kernel and console of all boots), qemu.log and, after a failure, journal.txt.
func (g *Guest) LogDir() string { return g.logDir }

// Disk is the guest's disk, for its counters and for a look at it while the guest is off.
func (g *Guest) Disk() *disk.Disk { return g.disk }

// Start switches the guest on and returns at once.
func (g *Guest) Start() {
	g.t.Helper()
	if g.on.Load() != nil {
		g.t.Fatalf("start %s: it is on already", g.cfg.Name)
	}
	on, err := g.powerOn()
	if err != nil {
		g.t.Fatalf("start %s: %v: see %s", g.cfg.Name, err, g.logDir)
	}
	g.on.Store(on)
	for link := range g.linkDown {
		if err := on.monitor.setLink(link, false); err != nil {
			g.t.Fatalf("start %s: %v", g.cfg.Name, err)
		}
	}
	if err := on.monitor.command("cont", nil); err != nil {
		g.t.Fatalf("start %s: %v", g.cfg.Name, err)
	}
}

// powerOn starts qemu, paused, with a socket pair for each thing it talks to.
func (g *Guest) powerOn() (*powered, error) {
	log, err := os.OpenFile(filepath.Join(g.logDir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	on := &powered{since: time.Now(), diskEnd: make(chan error, 1), exited: make(chan struct{})}
	on.cmd = exec.Command("qemu-system-x86_64")
	on.cmd.Stdout, on.cmd.Stderr = log, log
	on.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	ends, fds, err := g.inherit(on.cmd)
	if err != nil {
		return nil, err
	}
	on.cmd.Args = append(on.cmd.Args, qemuArgs(g.cfg, g.img, filepath.Join(g.logDir, "serial.log"), fds)...)
	err = on.start()
	for _, f := range on.cmd.ExtraFiles {
		_ = f.Close()
	}
	if err != nil {
		return nil, err
	}
	on.control = control.NewClient(ends.control)
	go func() { on.diskEnd <- g.disk.Serve(ends.disk) }()
	for i, n := range g.cfg.NICs {
		go n.Segment.plug(ends.nics[i])
	}
	on.monitor, err = newMonitor(ends.monitor)
	return on, err
}

// start starts qemu from a thread that lives as long as qemu, because the kernel ties "kill with the parent" to the thread.
func (on *powered) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := on.cmd.Start()
		started <- err
		if err == nil {
			on.err = on.cmd.Wait()
			close(on.exited)
		}
	}()
	return <-started
}

// AwaitBoot waits until systemd has started everything it is to start, puts the configured files in at the first boot, and returns the time since
// power-on. Failed units are logged, not fatal.
func (g *Guest) AwaitBoot() time.Duration {
	g.t.Helper()
	g.AwaitAgent()
	on := g.mustBeOn("await")
	ctx, cancel := context.WithTimeout(g.t.Context(), bootTimeout)
	defer cancel()
	var out strings.Builder
	err := on.control.Exec(ctx, control.Command{
		Argv:   []string{"sh", "-c", "systemctl is-system-running --wait; systemctl --failed --plain --no-legend"},
		Stdout: &out, Stderr: &out,
	})
	took := time.Since(on.since)
	state, failed, _ := strings.Cut(out.String(), "\n")
	if err != nil || state != "running" && state != "degraded" {
		g.t.Fatalf("boot %s: %v: state %q: see %s", g.cfg.Name, err, out.String(), g.logDir)
	}
	if state == "degraded" {
		g.t.Logf("guest %s has failed units: %s", g.cfg.Name, failed)
	}
	if !g.prepared {
		g.prepare()
	}
	return took
}

// AwaitAgent waits until the guest's user space answers, early in the boot, and returns the time since power-on.
func (g *Guest) AwaitAgent() time.Duration {
	g.t.Helper()
	on := g.mustBeOn("await")
	ctx, cancel := context.WithTimeout(g.t.Context(), bootTimeout)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-on.exited:
			cancel()
		case <-stop:
		}
	}()
	if _, err := on.control.Ping(ctx); err != nil {
		g.t.Fatalf("boot %s: no answer after %v: %v: see %s", g.cfg.Name, time.Since(on.since).Round(time.Second), err, g.logDir)
	}
	return time.Since(on.since)
}

// Boot is Start and AwaitBoot.
func (g *Guest) Boot() time.Duration {
	g.t.Helper()
	g.Start()
	return g.AwaitBoot()
}

// prepare is the installation after the first boot; everything is durable when it returns.
func (g *Guest) prepare() {
	g.t.Helper()
	for i, n := range g.cfg.NICs {
		g.WriteFile(fmt.Sprintf("/etc/systemd/network/20-nic%d.network", i), 0o644, n.unit())
	}
	if len(g.cfg.NICs) > 0 {
		g.MustRun("networkctl reload && /lib/systemd/systemd-networkd-wait-online --any --timeout=60")
	}
	for to, from := range g.cfg.Files {
		g.CopyIn(from, to)
	}
	g.prepared = true
}

// PowerCut takes the power away: qemu is killed, and writes that the guest had not flushed are lost as loss says. If the guest
// writes within two seconds, the cut falls between a write and its flush, where it hurts; else it falls after them.
func (g *Guest) PowerCut(loss disk.Loss) disk.Report {
	g.t.Helper()
	on := g.mustBeOn("cut the power of")
	g.disk.Hold(holdTime)
	_ = on.cmd.Process.Kill()
	<-on.exited
	g.disk.Off() // before kill, which waits for the disk's server
	g.kill()
	r, err := g.disk.PowerCut(loss)
	if err != nil {
		g.t.Fatalf("cut the power of %s: %v", g.cfg.Name, err)
	}
	g.t.Logf("power cut of %s (seed %d): %s", g.cfg.Name, g.cfg.Seed, r)
	return r
}

// Reboot restarts the guest in order and returns the time from power-on to the end of the boot.
func (g *Guest) Reboot() time.Duration {
	g.t.Helper()
	g.Shutdown()
	return g.Boot()
}

// Shutdown powers the guest off in order, through systemd.
func (g *Guest) Shutdown() {
	g.t.Helper()
	on := g.mustBeOn("shut down")
	ctx, cancel := context.WithTimeout(g.t.Context(), shutdownTimeout)
	defer cancel()
	// The answer may be lost with the machine, so only the end of qemu counts.
	_ = on.control.Exec(ctx, control.Command{Argv: []string{"systemctl", "poweroff"}})
	select {
	case <-on.exited:
	case <-ctx.Done():
		g.t.Fatalf("shut down %s: still on after %v: see %s", g.cfg.Name, shutdownTimeout, g.logDir)
	}
	g.kill()
	if err := g.disk.Flush(); err != nil {
		g.t.Fatalf("shut down %s: %v", g.cfg.Name, err)
	}
}

// kill ends qemu if it still runs and waits until nothing of it is left.
func (g *Guest) kill() {
	on := g.on.Load()
	_ = on.cmd.Process.Kill()
	<-on.exited
	_ = on.control.Close()
	_ = on.monitor.conn.Close()
	if err := <-on.diskEnd; err != nil {
		g.t.Errorf("disk of %s: %v", g.cfg.Name, err)
	}
	g.on.Store(nil)
}

// cleanUp switches off, and keeps the logs of a failed test.
func (g *Guest) cleanUp() {
	if !g.t.Failed() {
		if g.on.Load() != nil {
			g.kill()
		}
		if err := os.RemoveAll(g.logDir); err != nil {
			g.t.Errorf("remove logs: %v", err)
		}
		_ = os.Remove(filepath.Dir(g.logDir)) // fails while another guest's logs are there
		return
	}
	if g.on.Load() != nil {
		g.saveJournal()
		g.kill()
	}
	g.t.Logf("logs of guest %s: %s", g.cfg.Name, g.logDir)
}

// saveJournal copies the journal of all boots out, if the guest still answers.
func (g *Guest) saveJournal() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := os.Create(filepath.Join(g.logDir, "journal.txt"))
	if err != nil {
		g.t.Logf("save the journal: %v", err)
		return
	}
	defer func() { _ = f.Close() }()
	err = g.mustBeOn("read the journal of").control.Exec(ctx, control.Command{Argv: []string{"journalctl", "--no-pager", "-o", "short-precise"}, Stdout: f, Stderr: f})
	if err != nil {
		g.t.Logf("save the journal: %v", err)
	}
}

// mustBeOn returns the switched-on half.
func (g *Guest) mustBeOn(what string) *powered {
	g.t.Helper()
	on := g.on.Load()
	if on == nil {
		g.t.Fatalf("%s %s: it is off", what, g.cfg.Name)
	}
	return on
}
