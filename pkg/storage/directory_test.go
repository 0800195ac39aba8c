package storage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestMakeDirectory(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := t.TempDir()
	name := "pvc-1_default_data"
	if err := os.Mkdir(filepath.Join(root, ".new-"+name), 0o700); err != nil { // what a killed attempt leaves
		t.Fatal(err)
	}
	for range 2 {
		if err := makeDirectory(root, name); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != volumeMode {
			t.Fatalf("%v %v", info, err)
		}
	}
	if err := os.Chmod(filepath.Join(root, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeDirectory(root, name); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(filepath.Join(root, name)); info.Mode().Perm() != 0o700 {
		t.Errorf("the owner's mode was changed to %v", info.Mode())
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	if err := makeDirectory(root, strings.Repeat("x", maxName)); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

func TestMakeDirectoryRefuses(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(base, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../out", "link/out", "link", "file", "/out", "."} {
		if err := makeDirectory(root, name); err == nil && name != "." {
			t.Errorf("%q was made", name)
		}
	}
	if err := makeDirectory(filepath.Join(base, "missing"), "x"); err == nil {
		t.Error("made below a storage path that does not exist")
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) != 1 {
		t.Errorf("outside of the storage path: %v %v", entries, err)
	}
}

func TestRemoveDirectory(t *testing.T) {
	base := t.TempDir()
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, dir := range []string{filepath.Join(root, "pvc-1_a_b", "deep", "er"), outside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	keep := filepath.Join(outside, "keep")
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "pvc-1_a_b", "link")); err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{filepath.Join(root, "pvc-1_a_b"), filepath.Join(root, "pvc-1_a_b", "deep")} {
		if err := removeDirectory(root, "pvc-1_a_b", []string{"/", root, mount}); err == nil {
			t.Errorf("removed with %s mounted", mount)
		}
	}
	if err := removeDirectory(root, "../outside", nil); err == nil {
		t.Error("removed a directory outside of the storage path")
	}
	for range 2 {
		if err := removeDirectory(root, "pvc-1_a_b", []string{"/", root, root + "/pvc-1_a_bc"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "pvc-1_a_b")); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts([]byte("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" +
		"30 22 0:5 / /mnt/a\\040b\\134c rw,noatime shared:1 - tmpfs none rw\n\nshort line\n"))
	if want := []string{"/", `/mnt/a b\c`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if real, err := readMounts(); err != nil || !slices.Contains(real, "/") {
		t.Errorf("this process: %q %v", real, err)
	}
}
