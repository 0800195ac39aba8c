package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/conformance/ginkgo"
	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

const (
	// focus chooses the conformance specs of sig-network, and those of sig-node that need two nodes.
	focus = `(\[sig-network\]|\[sig-node\] NoExecuteTaintManager Multiple Pods).*\[Conformance\]`
	// suiteTimeout bounds the whole suite on a busy machine.
	suiteTimeout = 100 * time.Minute
)

// TestConformance runs the specs and compares what failed and what was skipped with testdata/expected.txt. KEDGE_FOCUS, a regular
// expression, chooses others; the list of what is expected is then not looked at.
func TestConformance(t *testing.T) {
	if os.Getenv("KEDGE_CONFORMANCE") == "" {
		t.Skip("takes ten minutes: run make conformance, or set KEDGE_CONFORMANCE=1")
	}
	list, err := ginkgo.ReadExpectedFile(filepath.Join("testdata", "expected.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t)
	which := focus
	if one := os.Getenv("KEDGE_FOCUS"); one != "" {
		which, list = one, nil
	}
	specs := s.runSuite(which)
	ginkgo.Check(t, specs, list)
}

func TestExpectedIsRead(t *testing.T) {
	if _, err := ginkgo.ReadExpectedFile(filepath.Join("testdata", "expected.txt")); err != nil {
		t.Error(err)
	}
}

// scene is a server and an agent beside it, with the images of the suite.
type scene struct {
	*testing.T
	s1, a1 *lab.Node
}

func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	shop := l.AddSite("shop")
	s := &scene{T: t, s1: shop.AddNode("s1", lab.Server())}
	w, err := newWorkshop(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.suite(s.s1.HostPath("/var/lib/suite")); err != nil {
		t.Fatal(err)
	}
	all, err := w.catalogue()
	if err != nil {
		t.Fatal(err)
	}
	addImages := func(n *lab.Node) {
		dir := n.HostPath("/var/lib/kedge/agent/images")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, image := range all {
			if err := image.WriteDocker(filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(image.Ref)+".tar")); err != nil {
				t.Fatal(err)
			}
		}
	}
	addImages(s.s1)
	s.s1.Start()
	s.s1.AwaitReady()
	s.a1 = shop.AddAgent("a1", s.s1)
	addImages(s.a1)
	s.a1.Start()
	s.a1.AwaitReady()
	s.s1.AwaitNodes("s1", "a1")
	return s
}

// runSuite runs specs on the server's machine and reads the report. The suite's output is beside kedge's log.
func (s *scene) runSuite(focus string) []ginkgo.Spec {
	s.Helper()
	return ginkgo.Run(s.T, s.s1, suiteTimeout, control.Command{
		Env: []string{"KUBECONFIG=/etc/kedge/kedge.yaml"},
		Argv: []string{"sh", "-c", `mkdir -p /tmp/bin && ln -sf /opt/kedge/bin/kedge /tmp/bin/kubectl && cd /var/lib && exec ./suite "$@" > /var/log/suite.log 2>&1`, "sh",
			"-kubeconfig=/etc/kedge/kedge.yaml", "-provider=skeleton", "-kubectl-path=/tmp/bin/kubectl", "-disable-log-dump", "-dump-logs-on-failure=false",
			"-num-nodes=2", "-allowed-not-ready-nodes=0", "-non-blocking-taints=node-role.kubernetes.io/control-plane",
			"-ginkgo.no-color", "-ginkgo.seed=1", "-ginkgo.v", "-ginkgo.timeout=" + suiteTimeout.String(), "-ginkgo.json-report=/var/log/suite.json",
			"-ginkgo.focus=" + focus},
	}, "/var/log/suite.json")
}
