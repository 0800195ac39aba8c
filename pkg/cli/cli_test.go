package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/agent"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/test/golden"
)

// run runs kedge with a config file that is empty, and returns its output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEDGE_CONFIG_FILE", empty)
	var out bytes.Buffer
	err := Run(append([]string{"kedge"}, args...), &out, &out)
	return out.String(), err
}

func TestManualsAreComplete(t *testing.T) {
	for _, command := range []string{"server", "agent"} {
		out, err := run(t, command, "--help")
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, command+".txt", out)
	}
	out, err := run(t)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "overview.txt", out)
	for _, command := range []string{"status", "check-config", "version", "completion"} {
		out, err := run(t, command, "-h")
		if err != nil || !strings.HasPrefix(out, "kedge "+command+" - ") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

func TestBadUsageIsOneClearLine(t *testing.T) {
	for args, want := range map[string]string{
		"serve":                         `unknown command "serve", did you mean server?`,
		"frobnicate":                    `unknown command "frobnicate" (see kedge --help)`,
		"--verbose":                     "unknown flag --verbose",
		"server --dta-dir x":            "unknown flag --dta-dir: did you mean --data-dir?",
		"server --qqqqqqqq":             "unknown flag --qqqqqqqq: see kedge server --help",
		"server --data-dir":             "flag --data-dir needs a value (see kedge server --help)",
		"server up":                     `server: unexpected argument "up" (see kedge server --help)`,
		"server --debug=maybe":          `--debug: "maybe" is neither true nor false (see kedge server --help)`,
		"server --foo":                  "unknown flag --foo: see kedge server --help",
		"server --selinux":              "--selinux: kedge labels no containers for SELinux yet",
		"snapshot sav":                  `unknown command "sav", did you mean save?`,
		"snapshot frobnicate":           `unknown command "frobnicate" (see kedge snapshot --help)`,
		"snapshot save --bad":           "unknown flag --bad: see kedge snapshot save --help",
		"snapshot save --data-dir x":    `--data-dir: "x" is not an absolute path`,
		"token create --ttl x":          `--ttl: "x" cannot be understood (see kedge token create --help)`,
		"token generate":                "token generate is not built: use kedge token create",
		"certificate rotate-ca":         "certificate rotate-ca is not built: the authorities are valid for ten years",
		"secrets-encrypt rotate-keys x": `secrets-encrypt rotate-keys: unexpected argument "x"`,
		"server --v eleven":             `--v: "eleven" is not a number from 0 to 10`,
		"server --config /nowhere":      "config file /nowhere, named by --config, does not exist",
		"server --server https://x":     `server "https://x" has no port: write https://x:6443`,
		"server --disable coredn":       `did you mean coredns?`,
		"agent --server https://x":      "server \"https://x\" has no port: write https://x:6443",
		"agent --cluster-cidr 10.0.0.0": "unknown flag --cluster-cidr",
		"status -o yaml":                `--output: "yaml" is neither table nor json`,
		"completion tcsh":               "give one of bash, zsh, fish",
	} {
		_, err := run(t, strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || ExitCode(err) != 1 {
			t.Errorf("%s: exit code %d, %v", args, ExitCode(err), err)
		}
	}
}

func TestPrintErrorNamesKedgeOnEachLine(t *testing.T) {
	var b bytes.Buffer
	PrintError(&b, errors.Join(errors.New("ports: in use"), errors.New("clock: wrong")))
	PrintError(&b, exit{1, nil})
	PrintError(&b, nil)
	if b.String() != "kedge: ports: in use\nkedge: clock: wrong\n" {
		t.Errorf("%q", b.String())
	}
	if ExitCode(nil) != 0 || ExitCode(errors.New("x")) != 1 || ExitCode(exit{2, nil}) != 2 {
		t.Error("exit codes")
	}
}

func TestFlagsReachTheConfig(t *testing.T) {
	settings := config.ServerSettings()
	var got config.Sources
	p := &program{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	app := p.app()
	for _, c := range app.Commands {
		if c.Name == "server" {
			c.Action = func(ctx *cli.Context) error { got = sources(ctx, settings); return nil }
		}
	}
	err := app.Run([]string{"kedge", "server", "-d", "/data", "--debug", "--disable-agent=false", "-c", "/c.yaml",
		"--kubelet-arg", "feature-gates=A=true,B=false", "--kubelet-arg=max-pods=9", "--node-name", "a", "--node-name", "b"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"data-dir": {"/data"}, "debug": {"true"}, "disable-agent": {"false"}, "node-name": {"b"},
		"kubelet-arg": {"feature-gates=A=true,B=false", "max-pods=9"},
	}
	if got.File != "/c.yaml" || len(got.Flags) != len(want) {
		t.Errorf("%+v", got)
	}
	for name, values := range want {
		if !slices.Equal(got.Flags[name], values) {
			t.Errorf("%s: %q, want %q", name, got.Flags[name], values)
		}
	}
}

func TestCalledByAnotherName(t *testing.T) {
	for args, want := range map[string]string{
		"/usr/local/bin/kubectl get pods": "kedge kubectl get pods",
		"crictl ps":                       "kedge crictl ps",
		"./ctr":                           "kedge ctr",
		"bin/kedge server":                "bin/kedge server",
	} {
		if got := strings.Join(multicall(strings.Fields(args)), " "); got != want {
			t.Errorf("%s: %s", args, got)
		}
	}
}

func TestKubeconfigChosen(t *testing.T) {
	home := t.TempDir()
	for _, tc := range []struct {
		args, env string
		want      bool
	}{
		{"get pods", "", false},
		{"get pods", "/x", true},
		{"--kubeconfig /x get pods", "", true},
		{"get pods --kubeconfig=/x", "", true},
		{"exec pod -- tool --kubeconfig /x", "", false},
	} {
		if got := kubeconfigChosen(strings.Fields(tc.args), tc.env, home); got != tc.want {
			t.Errorf("%s %s: %t", tc.args, tc.env, got)
		}
	}
	if err := os.MkdirAll(filepath.Join(home, ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".kube", "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !kubeconfigChosen(nil, "", home) {
		t.Error("the user's own kubeconfig was passed over")
	}
}

func TestCrictlTalksToKedge(t *testing.T) {
	socket := "CONTAINER_RUNTIME_ENDPOINT=unix://" + agent.ContainerdSocket
	for _, tc := range []struct {
		args, env []string
		want      bool
	}{
		{[]string{"ps"}, []string{"A=b"}, true},
		{[]string{"-r", "unix:///x", "ps"}, nil, true}, // its flag wins by itself
		{[]string{"--config", "/x", "ps"}, nil, false},
		{[]string{"ps"}, []string{"CRI_CONFIG_FILE=/x"}, false},
		{[]string{"ps"}, []string{"CONTAINER_RUNTIME_ENDPOINT=unix:///x"}, false},
	} {
		env := crictlEnv(tc.args, tc.env)
		if slices.Contains(env, socket) != tc.want || !slices.Equal(env[:len(tc.env)], tc.env) {
			t.Errorf("%q %q: %q", tc.args, tc.env, env)
		}
	}
}

func TestVersion(t *testing.T) {
	out, err := run(t, "version")
	if err != nil || !strings.HasPrefix(out, "kedge ") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = run(t, "version", "-o", "json")
	if err != nil || !strings.Contains(out, `"version": "dev"`) {
		t.Errorf("%v\n%s", err, out)
	}
}
