// Package machine is the inside of a machine of the lab: what its first process does to make a mount, PID, UTS, network and cgroup
// namespace look like a freshly installed host. Only test/lab and its program test/lab/node may import it.
//
// The host's files are there read-only. /etc starts as the host's and keeps what is changed; /var and /tmp start empty and keep what
// is put there; /run, /opt and /root start empty at every boot. When the control stream ends, because the test closed it or died, the
// first process ends, and with it the kernel ends everything else in the machine.
package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/test/vm/control"
)

// Config is what a machine is told when it boots.
type Config struct {
	// Hostname is its name.
	Hostname string
	// State is an absolute directory of the host that keeps the machine's files over reboots.
	State string
	// Hosts are further lines of /etc/hosts, Nameserver the address in /etc/resolv.conf.
	Hosts      []string
	Nameserver string
	// Mounts puts files and directories of the host below /opt: place to source.
	Mounts map[string]string
	// Env is the environment of everything that runs there, KEY=value.
	Env []string
}

// The steps of the program, its first argument, and the files that it inherits.
const (
	// StepBoot waits for its Config on ConfigFD and goes on as stepInit in a cgroup namespace of its own.
	StepBoot  = "boot"
	stepInit  = "init"
	stepServe = "serve"
	// ControlFD carries test/vm/control.
	ControlFD = 3
	// ConfigFD carries a Config in JSON, sent when the process is in its cgroups.
	ConfigFD = 4
)

const configVariable = "KEDGE_LAB_MACHINE"

// Main is the program test/lab/node.
func Main(args []string) error {
	step := ""
	if len(args) > 1 {
		step = args[1]
	}
	switch step {
	case StepBoot:
		return boot()
	case stepInit:
		return begin()
	case stepServe:
		return control.Serve(os.NewFile(ControlFD, "control"))
	}
	return errors.New("this program is started by the tests in test/lab")
}

// boot enters a cgroup namespace, which a thread does alone, and makes it the whole process's by replacing the program.
func boot() error {
	runtime.LockOSThread()
	var cfg json.RawMessage
	if err := json.NewDecoder(os.NewFile(ConfigFD, "config")).Decode(&cfg); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	// The clock is the host's. No program that is started from here on may set it.
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_TIME, 0, 0, 0); err != nil {
		return fmt.Errorf("drop CAP_SYS_TIME: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	// Inherited files are open until an exec says otherwise.
	if _, err := unix.FcntlInt(ControlFD, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep control stream: %w", err)
	}
	return syscall.Exec("/proc/self/exe", []string{"init", stepInit}, append(os.Environ(), configVariable+"="+string(cfg)))
}

// begin is process 1: it sets the machine up, starts the control server, and reaps until that ends.
func begin() error {
	var cfg Config
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &cfg); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountAll(cfg); err != nil {
		return err
	}
	serve := exec.Command("/proc/self/exe", stepServe)
	serve.Env, serve.Dir = cfg.Env, "/root"
	serve.Stderr = os.Stderr
	serve.ExtraFiles = []*os.File{os.NewFile(ControlFD, "control")}
	if err := serve.Start(); err != nil {
		return fmt.Errorf("start control server: %w", err)
	}
	if err := unix.Close(ControlFD); err != nil {
		return fmt.Errorf("close control stream: %w", err)
	}
	return reapUntil(serve.Process.Pid)
}

// reapUntil takes the exit status of orphans, as process 1 must, until the child pid has ended.
func reapUntil(pid int) error {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		case ended == pid && status.ExitStatus() != 0:
			return fmt.Errorf("control server ended with status %d", status.ExitStatus())
		case ended == pid:
			return nil
		}
	}
}
