package vm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kedge-io/kedge/test/built"
)

// EnvEnable is the environment variable that lets the VM scenarios run.
const EnvEnable = "KEDGE_VM"

// Image is what a guest boots from. It is never changed.
type Image struct {
	Kernel, Initrd, Disk string // file paths
}

// Require skips the test, saying why, unless VM scenarios were asked for.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(EnvEnable) != "1" {
		t.Skipf("boots a virtual machine, which takes root and some minutes of CPU: set %s=1 to run it", EnvEnable)
	}
}

// BaseImage builds the guest image, or finds it built before by the same script and agent. The first time takes a minute or
// two and downloads Debian packages; the packages are kept, so that a new agent takes seconds.
func BaseImage(t testing.TB) Image {
	t.Helper()
	img, err := baseImage(t.Context().Done())
	if err != nil {
		t.Fatalf("build the VM image: %v", err)
	}
	return img
}

func baseImage(stop <-chan struct{}) (Image, error) {
	root, err := built.Root()
	if err != nil {
		return Image{}, err
	}
	build := filepath.Join(root, "build", "vm")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lockFile(filepath.Join(build, "image.lock"), syscall.LOCK_EX)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	agent := filepath.Join(build, "agent")
	if err := buildAgent(root, agent); err != nil {
		return Image{}, err
	}
	script := filepath.Join(root, "scripts", "vm-image.sh")
	stamp, err := hashFiles(script, agent)
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(build, "image-"+stamp)
	img := Image{Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "base.img")}
	if _, err := os.Stat(img.Disk); err == nil {
		return img, nil
	}
	old, _ := filepath.Glob(filepath.Join(build, "image-*"))
	for _, o := range old {
		if err := os.RemoveAll(o); err != nil {
			return Image{}, err
		}
	}
	cmd := exec.Command(script, dir, agent)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := runUntil(cmd, stop)
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return img, nil
}

// runUntil runs cmd and kills its process group when stop closes.
func runUntil(cmd *exec.Cmd, stop <-chan struct{}) ([]byte, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-stop:
			if cmd.Process != nil {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
		case <-done:
		}
	}()
	return cmd.CombinedOutput()
}

// buildAgent compiles the guest's end of the control channel; the same source gives the same bytes.
func buildAgent(root, out string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./test/vm/guest")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest agent: %w\n%s", err, text)
	}
	return nil
}

// hashFiles is a short hash over the content of the files.
func hashFiles(paths ...string) (string, error) {
	h := sha256.New()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d\n", len(b))
		h.Write(b)
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

// lockTry makes lockFile fail instead of waiting.
const lockTry = syscall.LOCK_EX | syscall.LOCK_NB

// lockFile takes a lock that ends with the process at the latest.
func lockFile(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
