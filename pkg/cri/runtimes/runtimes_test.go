package runtimes

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/manifests"
)

func TestFind(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{
		filepath.Join(first, "crun"): 0o755, filepath.Join(second, "crun"): 0o755, filepath.Join(second, "containerd-shim-kata-v2"): 0o755,
		filepath.Join(second, "youki"): 0o644, // not a program
	} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(first, "nvidia-container-runtime"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := []Runtime{
		{Name: "crun", Type: runcType, Binary: filepath.Join(first, "crun")},
		{Name: "kata", Type: "io.containerd.kata.v2", Shim: filepath.Join(second, "containerd-shim-kata-v2")},
	}
	if got := find([]string{"relative", first, second}); !reflect.DeepEqual(got, want) {
		t.Errorf("found %+v", got)
	}
}

func TestEveryRuntimeHasAClass(t *testing.T) {
	text, err := fs.ReadFile(manifests.FS(), "runtimes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if !strings.Contains(string(text), "\nhandler: "+name+"\n") {
			t.Errorf("no RuntimeClass has the handler %s", name)
		}
	}
}
