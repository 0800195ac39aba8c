package install

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// pack makes a release of the programs in a folder.
func pack(t *testing.T, dir string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), absolute(t, repo+"/scripts/pack-release.sh"), dir)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
}

// TestPackedTwice packs the same program in two folders: the files have the same bytes, unpack to the program, and are
// what the list of checksums says.
func TestPackedTwice(t *testing.T) {
	program := bytes.Repeat([]byte("kedge is a program of some length. "), 1<<16)
	var sums [2]string
	for i := range sums {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "kedge-arm64"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		pack(t, dir, "ZSTD_LEVEL=3", "XZ_LEVEL=1", "GZIP_LEVEL=3")
		pack(t, dir, "ZSTD_LEVEL=3", "XZ_LEVEL=1", "GZIP_LEVEL=3") // over the files that are there
		list, err := os.ReadFile(filepath.Join(dir, "sha256sums.txt"))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = string(list)
		check := exec.CommandContext(t.Context(), "sh", "-ec", `sha256sum --quiet -c sha256sums.txt
			gzip -dc kedge-arm64.gz | cmp - kedge-arm64; xz -dc kedge-arm64.xz | cmp - kedge-arm64
			zstd -dcq kedge-arm64.zst | cmp - kedge-arm64`)
		check.Dir = dir
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("two releases of the same program differ:\n%s\n%s", sums[0], sums[1])
	}
	for _, name := range []string{"kedge-arm64\n", "kedge-arm64.gz\n", "kedge-arm64.xz\n", "kedge-arm64.zst\n", "install.sh\n"} {
		if !strings.Contains(sums[0], name) {
			t.Errorf("the list has no %s", name)
		}
	}
}

// TestBuiltTwice links the binary of this commit again, somewhere else, and compares it with the one that was built.
func TestBuiltTwice(t *testing.T) {
	built := filepath.Join(repo, "bin", "kedge")
	head, err := exec.CommandContext(t.Context(), "git", "-C", repo, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Skip("needs git: ", err)
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", repo, "status", "--porcelain").Output(); err != nil || len(out) > 0 {
		t.Skip("needs a clean tree, as in CI: other sources give another program")
	}
	said, err := exec.CommandContext(t.Context(), built, "version").Output()
	if err != nil || !strings.Contains(string(said), strings.TrimSpace(string(head))) {
		t.Skipf("needs bin/kedge of this commit: %v", err)
	}
	again := filepath.Join(t.TempDir(), "kedge")
	build := exec.CommandContext(t.Context(), "scripts/build.sh")
	build.Dir = repo
	build.Env = append(os.Environ(), "OUT="+again, "ARCH="+runtime.GOARCH, "TMPDIR="+t.TempDir())
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if a, b := fileSum(t, built), fileSum(t, again); !bytes.Equal(a, b) {
		t.Errorf("two builds of one commit differ: %x and %x", a, b)
	}
}

func fileSum(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return sum.Sum(nil)
}
