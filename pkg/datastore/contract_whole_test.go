package datastore_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var contractWhole = flag.Bool("contract-whole", false, "run every test of the apiserver's storage packages; takes minutes")

// TestContractWhole runs all tests of the apiserver's storage layer, watch cache, generic registry and
// reconcilers as they are, only with a datastore of ours where they start an etcd.
func TestContractWhole(t *testing.T) {
	if !*contractWhole {
		t.Skip("needs -contract-whole")
	}
	module := command(t, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/apiserver")
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(module)); err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(filepath.Join("testdata", "testserver.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	testserver := filepath.Join(copied, "pkg", "storage", "etcd3", "testserver")
	if err := makeWritable(copied); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(testserver, "test_server.go"), server, 0o600); err != nil {
		t.Fatal(err)
	}
	modfile := alternativeModule(t, copied)
	cmd := exec.Command("go", "test", "-count=1", "-timeout=30m", "-modfile="+modfile, "-mod=mod",
		"k8s.io/apiserver/pkg/storage/etcd3", "k8s.io/apiserver/pkg/storage/cacher",
		"k8s.io/apiserver/pkg/registry/generic/registry", "k8s.io/apiserver/pkg/reconcilers")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// alternativeModule makes a go.mod like ours with the copy in the place of k8s.io/apiserver.
func alternativeModule(t *testing.T, apiserver string) string {
	t.Helper()
	var env struct{ GOMOD string }
	if err := json.Unmarshal([]byte(command(t, "go", "env", "-json", "GOMOD")), &env); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(env.GOMOD), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modfile := filepath.Join(dir, "go.mod")
	command(t, "go", "mod", "edit", "-replace=k8s.io/apiserver="+apiserver, modfile)
	return modfile
}

// makeWritable undoes the module cache's protection, which a copy may have kept.
func makeWritable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o200)
	})
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return string(bytes.TrimSpace(out))
}
