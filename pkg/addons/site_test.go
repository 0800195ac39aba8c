package addons

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
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
	ended   chan error // when the process has gone
	err     error
}

var shared *site

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil && shared.process != nil {
		_ = shared.process.Process.Signal(syscall.SIGTERM)
		<-shared.ended
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
	api, controllers, err := freePorts()
	if err != nil {
		s.err = err
		return s
	}
	s.process = exec.Command(binary, "server", "--disable-agent", "--data-dir", filepath.Join(s.dir, "data"),
		"--https-listen-port", fmt.Sprint(api), "--write-kubeconfig", filepath.Join(s.dir, "kubeconfig"),
		"--disable-scheduler", "--kube-controller-manager-arg", fmt.Sprintf("secure-port=%d", controllers))
	if os.Geteuid() == 0 { // with a /run of its own, where a server keeps what outlives its restart
		const script = `mount --make-rprivate / && mount -t tmpfs run /run && exec "$0" "$@"`
		s.process = exec.Command("sh", append([]string{"-c", script}, s.process.Args...)...)
		s.process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
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
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.process.Wait() }()
	deadline := time.After(60 * time.Second)
	for {
		err := s.askAPI()
		if err == nil {
			return nil
		}
		select {
		case exit := <-s.ended:
			s.process = nil
			return fmt.Errorf("it ended: %w", exit)
		case <-deadline:
			return err
		case <-time.After(100 * time.Millisecond):
		}
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
	records, err := listRecords(context.Background(), client) // the server's own add-ons component must have done its work
	for _, r := range records {
		if readyCondition(&r).Reason != v1alpha1.ReasonApplied {
			return fmt.Errorf("add-on %s: %+v", r.Name, r.Status.Conditions)
		}
	}
	if err == nil && len(records) < 4 {
		return fmt.Errorf("%d add-ons", len(records))
	}
	return err
}

func freePorts() (first, second int, err error) {
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer one.Close()
	two, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer two.Close()
	return one.Addr().(*net.TCPAddr).Port, two.Addr().(*net.TCPAddr).Port, nil
}
