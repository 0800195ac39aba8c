package addons

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/kube"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// envKubeconfig names a kubeconfig of a throw-away API server to use instead of starting one.
const envKubeconfig = "KEDGE_TEST_KUBECONFIG"

func namespaces() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
}
func eventsResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "events"}
}
func clusterDNS() []net.IP { return []net.IP{net.IPv4(10, 43, 0, 10)} }

// site is the one server that all tests of this package share.
type site struct {
	dir     string
	process *exec.Cmd
	err     error
}

var shared *site

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil && shared.process != nil {
		_ = shared.process.Process.Signal(syscall.SIGTERM)
		_ = shared.process.Wait()
	}
	if shared != nil {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// siteKubeconfig returns the kubeconfig of a real control plane: the built binary, run with everything else switched off.
func siteKubeconfig(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(envKubeconfig); path != "" {
		return path
	}
	binary, err := filepath.Abs("../../bin/kedge")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("needs the built binary (make build): %v", err)
	}
	if shared == nil {
		shared = startSite(binary)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return filepath.Join(shared.dir, "kubeconfig")
}

func startSite(binary string) *site {
	s := &site{}
	if s.dir, s.err = os.MkdirTemp("", "kedge-addons-"); s.err != nil {
		return s
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.err = err
		return s
	}
	defer log.Close()
	port, err := freePort()
	if err != nil {
		s.err = err
		return s
	}
	s.process = exec.Command(binary, "server", "--disable-agent", "--data-dir", filepath.Join(s.dir, "data"),
		"--https-listen-port", fmt.Sprint(port), "--write-kubeconfig", filepath.Join(s.dir, "kubeconfig"))
	s.process.Stdout, s.process.Stderr = log, log
	if s.err = s.process.Start(); s.err != nil {
		return s
	}
	s.err = s.awaitAPI()
	if s.err != nil {
		text, _ := os.ReadFile(log.Name())
		s.err = fmt.Errorf("kedge server did not come up: %w\n%s", s.err, text)
	}
	return s
}

func (s *site) awaitAPI() error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := s.askAPI()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *site) askAPI() error {
	cfg, err := kube.Config(filepath.Join(s.dir, "kubeconfig"), "test")
	if err != nil {
		return err
	}
	client, err := kube.NewClient(cfg)
	if err != nil {
		return err
	}
	found, err := client.Dynamic.Resource(namespaces()).List(context.Background(), metav1.ListOptions{})
	if err == nil && len(found.Items) == 0 {
		return errors.New("no namespaces yet")
	}
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
