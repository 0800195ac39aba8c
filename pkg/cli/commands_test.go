package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/check"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/status"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/test/golden"
)

func TestStatusExitCodes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kedge.sock")
	if _, err := run(t, "status", "--socket", socket); ExitCode(err) != 2 || !strings.Contains(err.Error(), "not running") {
		t.Errorf("%v", err)
	}
	state := make(chan supervisor.State, 1)
	s, err := status.New(status.Config{Path: socket, Mode: "server", Components: func() []supervisor.Status {
		now := <-state
		state <- now
		return []supervisor.Status{{Name: "kubelet", State: now, Since: time.Now(), Reason: "no runtime"}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	state <- supervisor.NotReady
	out, err := run(t, "status", "--socket", socket)
	if ExitCode(err) != 1 || err.Error() != "" || !strings.Contains(out, "not ready") || !strings.Contains(out, "no runtime") {
		t.Errorf("%v\n%s", err, out)
	}
	<-state
	state <- supervisor.Ready
	out, err = run(t, "status", "--socket", socket, "-o", "json")
	if err != nil || !strings.Contains(out, `"ready": true`) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	err := printStatus(&b, status.Report{
		Mode: "server", Version: "v0.1.0", PID: 42, Started: now.Add(-50 * time.Hour), Ready: true,
		Components: []supervisor.Status{
			{Name: "apiserver", State: supervisor.Ready, Since: now.Add(-49 * time.Hour)},
			{Name: "mqtt", State: supervisor.NotReady, Since: now.Add(-90 * time.Second), Optional: true, Reason: "port 1883 in use"},
			{Name: "dns", State: supervisor.Ready, Since: now.Add(-3 * time.Hour)},
			{Name: "kubelet", State: supervisor.Ready, Since: now.Add(-5 * time.Second)},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "status.txt", b.String())
}

func TestCheckConfigExitCode(t *testing.T) {
	rows := []check.Result{
		{Name: "disk", Outcome: check.Pass, Detail: "10 GiB free"},
		{Name: "cgroups", Outcome: check.Warn, Detail: "version 1", Fix: "boot with version 2"},
	}
	var b bytes.Buffer
	p := &program{out: &b}
	if err := p.checkConfig(rows, "table"); err != nil {
		t.Errorf("warnings only: %v", err)
	}
	rows = append(rows, check.Result{Name: "ports", Outcome: check.Fail, Detail: "6443 is in use", Fix: "stop it"})
	if err := p.checkConfig(rows, "table"); ExitCode(err) != 1 {
		t.Errorf("%v", err)
	}
	golden.Check(t, "check-config.txt", b.String())
	b.Reset()
	if err := p.checkConfig(rows, "json"); ExitCode(err) != 1 || !strings.Contains(b.String(), `"outcome": "fail"`) {
		t.Errorf("%v %s", err, &b)
	}
}

// start is what kedge server does before its parts exist.
func start(t *testing.T, machine check.Config) (ran bool, log string, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var b bytes.Buffer
	p := &program{out: &b, err: &b}
	err = p.start(config.Log{}, machine, func(context.Context, *slog.Logger) error {
		ran = true
		return errors.New("from run")
	})
	return ran, b.String(), err
}

func TestStartRefusesBeforeAnythingIsDone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	newer := t.TempDir()
	for name, content := range map[string]string{file: "", filepath.Join(newer, "version"): "v99.0.0\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	busy := t.TempDir()
	unlock, err := check.Lock(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		machine check.Config
		want    string
	}{
		{check.Config{DataDir: t.TempDir(), BindAddress: netip.MustParseAddr("127.0.0.1"),
			Port: taken.Addr().(*net.TCPAddr).Port}, "for the API is in use by cli.test"},
		{check.Config{DataDir: filepath.Join(file, "data")}, "choose another --data-dir"},
		{check.Config{DataDir: busy}, "another kedge (pid "},
		{check.Config{DataDir: t.TempDir(), Built: time.Now().Add(48 * time.Hour)}, "clock: the clock says"},
	} {
		ran, _, err := start(t, tc.machine)
		if ran || err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want %q, got %v", tc.want, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(newer, "version")); err != nil || string(data) != "v99.0.0\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestStartMarksAndUnlocks(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		ran, _, err := start(t, check.Config{DataDir: dir})
		if !ran || err == nil || err.Error() != "from run" {
			t.Errorf("%t, %v", ran, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "version")); err != nil || string(data) != "dev\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestASignalEndsTheRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := &program{out: io.Discard, err: io.Discard}
	err := p.start(config.Log{}, check.Config{DataDir: t.TempDir()}, func(ctx context.Context, _ *slog.Logger) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLogFileIsAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kedge.log")
	var stderr bytes.Buffer
	p := &program{err: &stderr}
	for _, also := range []bool{false, true} {
		w, closeLog, err := p.openLog(config.Log{File: file, AlsoStderr: also})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "line\n"); err != nil {
			t.Fatal(err)
		}
		if err := closeLog(); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "line\nline\n" || stderr.String() != "line\n" {
		t.Errorf("%q and %q, %v", data, &stderr, err)
	}
	if _, _, err := p.openLog(config.Log{File: "/nowhere/kedge.log"}); err == nil || !strings.Contains(err.Error(), "--log: open /nowhere") {
		t.Errorf("%v", err)
	}
}

func TestCandidates(t *testing.T) {
	commands := (&program{}).app().Commands
	for words, want := range map[string]string{
		"":                 "server agent status check-config token node snapshot secrets-encrypt certificate device mapper kubectl ctr crictl version completion",
		"ser":              "server",
		"completion ":      "bash zsh fish",
		"token ":           "create list delete rotate",
		"token create --t": "--ttl",
		"node --h":         "--help",
		"server --tls":     "--tls-san",
		"agent --cluster":  "",
		"status --s":       "--socket",
		"nonsense --thing": "",
	} {
		if got := strings.Join(candidates(strings.Split(words, " "), commands), " "); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}

func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	script := `kedge() { echo "asked: $*" >&2; printf 'server\nstatus\n'; }
` + completionScripts()["bash"] + `
COMP_WORDS=(kedge s) COMP_CWORD=1
_kedge
echo "${COMPREPLY[@]}"`
	out, err := exec.Command(bash, "--norc", "-c", script).Output()
	if err != nil || string(out) != "server status\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestKubectlWithoutACluster(t *testing.T) {
	for args, free := range map[string]bool{
		"": true, "version --client": true, "config view": true, "get pods --help": true, "-s https://x get pods": true, "get pods --server=https://x": true,
		"get pods": false, "-n default get pods": false, "apply -f x.yaml": false,
	} {
		if err := noCluster(strings.Fields(args)); (err == nil) != free || err != nil && !strings.Contains(err.Error(), "kubectl --local") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
