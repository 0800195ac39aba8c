package kubernetes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// workshop is a module of its own in which upstream's tests and programs are built with the versions of our go.mod. Theirs needs modules
// that ours must not have.
type workshop struct {
	dir string
	// kubernetes is where the source of k8s.io/kubernetes lies.
	kubernetes string
}

// root is the repository.
const root = "../../.."

// agnhost is the program that most specs run in their pods.
const agnhost = "k8s.io/kubernetes/test/images/agnhost"

func newWorkshop(dir string) (*workshop, error) {
	w := &workshop{dir: dir}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(mod), "\n")
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module suite\n"+rest), 0o600); err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "suite"))); err != nil {
		return nil, err
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		return nil, err
	}
	if _, err := w.run("get", agnhost, "."); err != nil {
		return nil, err
	}
	text, err := w.run("list", "-m", "-json", "k8s.io/kubernetes")
	if err != nil {
		return nil, err
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("read go list: %w", err)
	}
	w.kubernetes = found.Dir
	return w, nil
}

// suite compiles the specs to a program.
func (w *workshop) suite(out string) error {
	_, err := w.run("test", "-c", "-vet=off", "-ldflags=-s -w", "-o", out, ".")
	return err
}

// agnhost compiles the program that most specs run in their pods.
func (w *workshop) agnhost() ([]byte, error) {
	out := filepath.Join(w.dir, "agnhost")
	if _, err := w.run("build", "-ldflags=-s -w", "-o", out, agnhost); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

func (w *workshop) run(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	var problem strings.Builder
	cmd.Dir, cmd.Stderr = w.dir, &problem
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod -trimpath -tags=netgo,osusergo -buildvcs=false")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, problem.String())
	}
	return out, nil
}
