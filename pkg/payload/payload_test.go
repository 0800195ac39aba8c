package payload

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// makeDir makes a payload directory with a few programs and points the
// environment at it.
func makeDir(t *testing.T, runc string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bin", "runc"), runc, 0o755)
	write(t, filepath.Join(dir, "bin", "kedge-cni"), "plugins", 0o755)
	if err := os.Symlink("kedge-cni", filepath.Join(dir, "bin", "bridge")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "lib", "nft", "libc.so.6"), strings.Repeat("c", 100_000), 0o644)
	write(t, filepath.Join(dir, "images", "pause.tar"), "pause", 0o644)
	write(t, filepath.Join(dir, "bin", "ctl"), "lazy", 0o755)
	m, err := NewManifest(os.DirFS(dir), "kedge.local/pause:1", "bin/ctl")
	if err != nil {
		t.Fatal(err)
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ManifestName), string(data), 0o644)
	t.Setenv(DirEnv, dir)
	return dir
}

func write(t *testing.T, path, data string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ensure(t *testing.T, dataDir string) *Payload {
	t.Helper()
	p, err := Ensure(Config{DataDir: dataDir, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnsureUnpacksOnce(t *testing.T) {
	makeDir(t, "runc one")
	data := t.TempDir()
	p := ensure(t, data)
	path, err := p.Path("runc")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(data, "data", p.manifest.Hash, "bin", "runc"); path != want {
		t.Errorf("path of runc is %s, want %s", path, want)
	}
	if got := read(t, path); got != "runc one" {
		t.Errorf("runc holds %q", got)
	}
	if got := read(t, filepath.Join(data, "data", "current", "bin", "runc")); got != "runc one" {
		t.Errorf("current runc holds %q", got)
	}
	ref, archive := p.PauseImage()
	if ref != "kedge.local/pause:1" || read(t, archive) != "pause" {
		t.Errorf("pause image is %s in %s", ref, archive)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	ensure(t, data)
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("the second start wrote runc again")
	}
}

func TestEnsureInParallel(t *testing.T) {
	makeDir(t, "runc one")
	data := t.TempDir()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := Ensure(Config{DataDir: data, Log: discard()}); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if got := read(t, filepath.Join(data, "data", "current", "bin", "runc")); got != "runc one" {
		t.Errorf("runc holds %q", got)
	}
}

func TestEnsureRepairs(t *testing.T) {
	damage := map[string]func(t *testing.T, dir string){
		"file missing":   func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "bin", "runc")) },
		"file truncated": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "bin", "runc"), "", 0o755) },
		"not executable": func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "bin", "runc"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"link missing": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "bin", "bridge")) },
		"link wrong": func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "bin", "bridge"))
			write(t, filepath.Join(dir, "bin", "bridge"), "no link", 0o755)
		},
		"marker missing": func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, ManifestName))
			write(t, filepath.Join(dir, "bin", "runc"), "rubbish!", 0o755)
		},
		"library directory missing": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "lib")) },
		"marker torn": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ManifestName), "{", 0o644)
			write(t, filepath.Join(dir, "bin", "runc"), "rubbish!", 0o755)
		},
		"interrupted unpacking": func(t *testing.T, dir string) {
			if err := os.Rename(dir, filepath.Join(filepath.Dir(dir), ".new-"+filepath.Base(dir))); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(filepath.Dir(dir), ".new-"+filepath.Base(dir), "bin", "runc"), "rubbish!", 0o755)
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			makeDir(t, "runc one")
			data := t.TempDir()
			dir := filepath.Dir(ensure(t, data).BinDir())
			spoil(t, dir)
			path, err := ensure(t, data).Path("runc")
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != "runc one" {
				t.Errorf("runc holds %q", got)
			}
			if got := read(t, filepath.Join(dir, "bin", "bridge")); got != "plugins" {
				t.Errorf("bridge holds %q", got)
			}
			if got := read(t, filepath.Join(dir, "lib", "nft", "libc.so.6")); len(got) != 100_000 {
				t.Errorf("library has %d bytes", len(got))
			}
			leftovers, err := filepath.Glob(filepath.Join(data, "data", ".new-*"))
			if err != nil || len(leftovers) > 0 {
				t.Errorf("left over: %v %v", leftovers, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureRefusesDamagedBundle(t *testing.T) {
	dir := makeDir(t, "runc one")
	write(t, filepath.Join(dir, "bin", "runc"), "runc two", 0o755)
	data := t.TempDir()
	_, err := Ensure(Config{DataDir: data, Log: discard()})
	if err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Fatalf("error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "data", "current")); err == nil {
		t.Error("a damaged bundle became current")
	}
}

// TestRetire keeps current, previous, and what a process runs.
func TestRetire(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	makeDir(t, string(program))
	first := ensure(t, data)
	shim, err := first.Path("runc")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shim, "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	var later []*Payload
	for _, content := range []string{"two", "three", "four"} {
		makeDir(t, content)
		later = append(later, ensure(t, data))
	}
	exists := func(p *Payload) bool {
		_, err := os.Stat(p.BinDir())
		return err == nil
	}
	if !exists(first) {
		t.Error("the payload that a process runs from was removed")
	}
	if exists(later[0]) {
		t.Error("an unused payload was kept")
	}
	if !exists(later[1]) || !exists(later[2]) {
		t.Error("current or previous was removed")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	makeDir(t, "five")
	ensure(t, data)
	if exists(first) {
		t.Error("a payload was kept after its last process ended")
	}
}

func TestLazyProgram(t *testing.T) {
	makeDir(t, "runc one")
	data := t.TempDir()
	p := ensure(t, data)
	file := filepath.Join(p.BinDir(), "ctl")
	if _, err := os.Lstat(file); err == nil {
		t.Error("a lazy program was unpacked at the start")
	}
	for _, spoil := range []func(){
		func() {},
		func() { write(t, file, "x", 0o755) },
		func() {
			remove(t, filepath.Join(filepath.Dir(p.BinDir()), ManifestName))
			write(t, file, "zyla", 0o755)
		},
	} {
		spoil()
		path, err := ensure(t, data).Path("ctl")
		if err != nil || path != file || read(t, path) != "lazy" {
			t.Errorf("lazy program is %s, %v", path, err)
		}
	}
}

func TestPathErrors(t *testing.T) {
	makeDir(t, "runc one")
	p := ensure(t, t.TempDir())
	_, err := p.Path("crictl")
	if err == nil || !strings.Contains(err.Error(), "crictl") || !strings.Contains(err.Error(), "build-payload.sh") {
		t.Errorf("error is %v", err)
	}
}

func TestPreferHostBin(t *testing.T) {
	makeDir(t, "runc one")
	host := t.TempDir()
	write(t, filepath.Join(host, "nft"), "host nft", 0o755)
	write(t, filepath.Join(host, "bridge"), "host bridge", 0o755)
	t.Setenv("PATH", host)
	p, err := Ensure(Config{DataDir: t.TempDir(), PreferHostBin: true, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	if path, err := p.Path("nft"); err != nil || path != filepath.Join(host, "nft") {
		t.Errorf("nft is %s, %v", path, err)
	}
	if path, err := p.Path("bridge"); err != nil || path != filepath.Join(p.BinDir(), "bridge") {
		t.Errorf("bridge is %s, %v", path, err)
	}
	spare := filepath.Join(filepath.Dir(p.BinDir()), "spare")
	if got := p.SearchPath(host + ":/usr/bin"); !strings.HasPrefix(got, host+":/usr/bin:") || !strings.HasSuffix(got, ":"+p.BinDir()+":"+spare) {
		t.Errorf("search path is %s", got)
	}
	p.preferHost = false
	if got, want := p.SearchPath(host+":"+spare+"::"+p.BinDir()), p.BinDir()+":"+host+":"+spare; got != want {
		t.Errorf("search path is %s, want %s", got, want)
	}
}

func TestWithoutBundle(t *testing.T) {
	t.Setenv(DirEnv, "")
	_, err := Ensure(Config{DataDir: t.TempDir(), Log: discard()})
	if err == nil || !strings.Contains(err.Error(), "scripts/build.sh") {
		t.Errorf("error is %v", err)
	}
	t.Setenv(DirEnv, "/nonexistent")
	_, err = Ensure(Config{DataDir: t.TempDir(), Log: discard()})
	if err == nil || !strings.Contains(err.Error(), DirEnv+"=/nonexistent") {
		t.Errorf("error is %v", err)
	}
}

func TestManifestRoundTrip(t *testing.T) {
	dir := makeDir(t, "runc one")
	m, data, err := readManifest(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoding changed: %v", err)
	}
	for _, bad := range []string{"", "{}", strings.Replace(string(data), "bin/runc", "../runc", 1), strings.Replace(string(data), `"size": 8`, `"size": 9`, 1),
		strings.Replace(string(data), `"link": "kedge-cni"`, `"link": "../kedge-cni"`, 1)} {
		if _, err := DecodeManifest([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
