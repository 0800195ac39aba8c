package vm

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// envCrash makes TestCrash the process that is killed.
const envCrash = "KEDGE_VM_CRASH"

// TestCrash kills a test process with a running guest: qemu ends with it, and the next guest removes what it left.
func TestCrash(t *testing.T) {
	Require(t)
	if os.Getenv(envCrash) != "" {
		g := New(t, Config{Name: "orphan", MemMiB: 256})
		g.Start()
		runs, _ := filepath.Glob("../../build/vm/run-*/overlay")
		fmt.Printf("\norphan %d %s\n", g.mustBeOn("show").cmd.Process.Pid, strings.Join(runs, " "))
		select {}
	}
	BaseImage(t) // not in the child, which has a time limit
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrash$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), envCrash+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid string
	for lines := bufio.NewScanner(out); pid == "" && lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "orphan" {
			pid = f[1]
		}
	}
	if pid == "" {
		t.Fatalf("the child started no guest: %v", cmd.Wait())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("qemu %s outlives its test process", pid)
		}
	}
	left, _ := filepath.Glob("../../build/vm/run-*")
	New(t, Config{Name: "next"})
	now, _ := filepath.Glob("../../build/vm/run-*")
	for _, dir := range left {
		for _, n := range now {
			if n == dir && !inUse(dir) {
				t.Errorf("%s of the killed process is still there", dir)
			}
		}
	}
	if len(left) == 0 {
		t.Error("the killed process left no directory: the test shows nothing")
	}
}

// inUse says whether a living process holds the directory's lock.
func inUse(dir string) bool {
	unlock, err := lockFile(filepath.Join(dir, "lock"), lockTry)
	if err != nil {
		return true
	}
	unlock()
	return false
}

// alive is false for a process that is gone or only waits to be reaped.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
