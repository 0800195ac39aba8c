package payload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// unpackEnv makes this test binary unpack its own bundle and print BinDir.
const unpackEnv = "KEDGE_TEST_UNPACK_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(unpackEnv); dir != "" {
		p, err := Ensure(Config{DataDir: dir, Log: discard()})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print(p.BinDir())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bundle is a copy of this test binary with a payload at its end, as
// scripts/build.sh makes it.
func bundle(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	args := append([]string{"run", "../../scripts/payload", "archive", "-dir", dir, "-o", archive}, flags...)
	if text, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	out := filepath.Join(t.TempDir(), "bundled")
	write(t, out, read(t, self)+read(t, archive), 0o755)
	return out
}

func unpackCommand(program, dataDir string) *exec.Cmd {
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), unpackEnv+"="+dataDir, DirEnv+"=")
	return cmd
}

func TestBundle(t *testing.T) {
	program := bundle(t, makeDir(t, "runc one"))
	data := t.TempDir()
	out, err := unpackCommand(program, data).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := read(t, filepath.Join(string(out), "runc")); got != "runc one" {
		t.Errorf("runc holds %q", got)
	}
}

func TestDamagedBundle(t *testing.T) {
	program := bundle(t, makeDir(t, "runc one"), "-stored")
	content := read(t, program)
	at := strings.LastIndex(content, "runc one")
	if at < 0 {
		t.Fatal("the bundle does not hold runc as it is")
	}
	write(t, program, content[:at]+"runc 0ne"+content[at+8:], 0o755)
	out, err := unpackCommand(program, t.TempDir()).Output()
	if err == nil || !strings.Contains(string(out), "checksum") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestKilledWhileUnpacking kills unpacking processes at many moments: the next
// one must end with whole files.
func TestKilledWhileUnpacking(t *testing.T) {
	dir := makeDir(t, strings.Repeat("runc", 1_000_000))
	program := bundle(t, dir)
	remove(t, filepath.Join(dir, "bin", "ctl")) // not unpacked
	want, err := NewManifest(os.DirFS(dir), "kedge.local/pause:1")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	for round := range 30 {
		if round%10 == 9 {
			remove(t, filepath.Join(data, "data"))
		}
		cmd := unpackCommand(program, data)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Not synchronisation: the moment of the kill is the point.
		kill := time.AfterFunc(time.Duration(round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
	}
	out, err := unpackCommand(program, data).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := NewManifest(os.DirFS(filepath.Dir(string(out))), "kedge.local/pause:1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash != want.Hash {
		t.Errorf("after the kills %+v is unpacked, want %+v", got, want)
	}
}
