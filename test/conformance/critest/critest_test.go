package critest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kedge-io/kedge/test/conformance/ginkgo"
	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

const (
	// mirror is where the registry listens in the machine.
	mirror = "127.0.0.1:5000"
	// endpoint is what is tested.
	endpoint = "unix:///run/kedge/containerd/containerd.sock"
	// suiteTimeout bounds the whole suite on a busy machine.
	suiteTimeout = 40 * time.Minute
)

// TestCRIConformance runs the suite and compares what failed and what was skipped with testdata/expected.txt.
func TestCRIConformance(t *testing.T) {
	if os.Getenv("KEDGE_CONFORMANCE") == "" {
		t.Skip("takes several minutes: run make critest, or set KEDGE_CONFORMANCE=1")
	}
	list, err := ginkgo.ReadExpectedFile(filepath.Join("testdata", "expected.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t)
	s.startRuntime()
	s.pullByDigest()
	specs := s.runSuite()
	ginkgo.Check(t, specs, list)
	for _, host := range []string{"registry.k8s.io", "k8s.gcr.io", "gcr.io"} {
		if !s.asked(host) {
			t.Errorf("the mirror was not asked for an image of %s", host)
		}
	}
}

func TestExpectedIsRead(t *testing.T) {
	if list, err := ginkgo.ReadExpectedFile(filepath.Join("testdata", "expected.txt")); err != nil || len(list) == 0 {
		t.Errorf("%d lines, %v", len(list), err)
	}
}

// scene is a machine with a registry of the suite's images in it.
type scene struct {
	*testing.T
	lab *lab.Lab
	s1  *lab.Node
	all []publication
	mu  sync.Mutex
	// hosts are the registries for which the mirror was asked.
	hosts map[string]bool
}

func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, s1: l.AddSite("shop").AddNode("s1", lab.Server()), hosts: map[string]bool{}}
	listener, err := s.s1.Listen("tcp", mirror)
	if err != nil {
		t.Fatal(err)
	}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.hosts[r.URL.Query().Get("ns")] = true
		s.mu.Unlock()
		store.ServeHTTP(w, r)
	})}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { _ = server.Close() })
	s.publish(store)
	return s
}

// asked says whether the mirror was asked for an image of a registry.
func (s *scene) asked(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[host]
}

// publish makes the images and pushes them.
func (s *scene) publish(registry http.Handler) {
	s.Helper()
	busybox, err := images.Busybox("/bin/busybox")
	if err != nil {
		s.Fatal(err)
	}
	guest, err := buildGuest(s.TempDir())
	if err != nil {
		s.Fatal(err)
	}

	s.all = catalogue(busybox, guest)
	if err := push(s.all, registry); err != nil {
		s.Fatal(err)
	}
}

// startRuntime starts kedge twice. The first start makes the node and its pod network. In the second the kubelet looks for the API
// where there is none: it then knows no pods and touches none, while it would kill the suite's, which are not in the API.
func (s *scene) startRuntime() {
	s.Helper()
	s.file("/etc/kedge/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"http://"+mirror+"\"]\n")
	s.file("/etc/kedge/nowhere.yaml", nowhere)
	s.s1.Start()
	s.s1.AwaitReady()
	s.s1.Stop()
	s.s1.SetRole(lab.Server("--kubelet-arg", "kubeconfig=/etc/kedge/nowhere.yaml"))
	s.s1.Start()
	s.lab.Await("containerd with a pod network", 2*time.Minute, func() error {
		out, err := s.s1.Run("kedge", "crictl", "info")
		if err != nil {
			return err
		}
		var info struct {
			Status struct {
				Conditions []struct {
					Type    string
					Status  bool
					Message string
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			return err
		}
		for _, c := range info.Status.Conditions {
			if strings.HasSuffix(c.Type, "Ready") && !c.Status {
				return fmt.Errorf("%s: %s", c.Type, c.Message)
			}
		}
		return nil
	})
}

// nowhere is a kubeconfig for an address where nothing listens.
const nowhere = `apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody}]
current-context: nowhere
`

// file writes a file of the machine.
func (s *scene) file(path, content string) {
	s.Helper()
	if _, err := s.s1.RunInput(content, "sh", "-c", `mkdir -p "${0%/*}" && cat > "$0"`, path); err != nil {
		s.Fatal(err)
	}
}

// pullByDigest does with an image of ours what the suite does with one that cannot be made here.
func (s *scene) pullByDigest() {
	s.Helper()
	i := slices.IndexFunc(s.all, func(p publication) bool { return p.image.Ref == byDigest })
	image, err := s.all[i].image.Build()
	if err != nil {
		s.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		s.Fatal(err)
	}
	ref := strings.TrimSuffix(byDigest, ":latest") + "@" + digest.String()
	s.s1.Kedge("crictl", "pull", ref)
	var found struct {
		Status struct{ RepoTags, RepoDigests []string }
	}
	if err := json.Unmarshal([]byte(s.s1.Kedge("crictl", "inspecti", ref)), &found); err != nil {
		s.Fatal(err)
	}
	if len(found.Status.RepoTags) != 0 || !slices.Equal(found.Status.RepoDigests, []string{ref}) {
		s.Errorf("pulled by digest: %+v", found)
	}
	s.s1.Kedge("crictl", "rmi", ref)
}

// runSuite runs the suite on the machine and reads its report. The suite's output is beside kedge's log.
func (s *scene) runSuite() []ginkgo.Spec {
	s.Helper()
	program, err := buildSuite(s.s1.HostPath("/var/lib/critest"))
	if err != nil {
		s.Fatal(err)
	}
	s.Log("the suite is " + program)
	return ginkgo.Run(s.T, s.s1, suiteTimeout, control.Command{Argv: []string{"sh", "-c", `exec /var/lib/critest "$@" > /var/log/critest.log 2>&1`, "sh",
		"-runtime-endpoint=" + endpoint, "-ginkgo.no-color", "-ginkgo.seed=1", "-ginkgo.json-report=/var/log/critest.json"}}, "/var/log/critest.json")
}

// buildSuite compiles the suite of the pinned version in its own module and returns what it is.
func buildSuite(out string) (string, error) {
	version, err := pinned("CRI_TOOLS_VERSION")
	if err != nil {
		return "", err
	}
	module := "sigs.k8s.io/cri-tools@" + version
	text, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", module, err, text)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(text, &found); err != nil {
		return "", fmt.Errorf("download %s: %w", module, err)
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", out, "./cmd/critest")
	cmd.Dir, cmd.Env = found.Dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", module, err, text)
	}
	return module, nil
}

// pinned reads a version from scripts/versions.env.
func pinned(key string) (string, error) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "scripts", "versions.env"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("scripts/versions.env has no %s", key)
}
