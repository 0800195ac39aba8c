package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

// texts defines the functions of install.sh, without running it, for the machine of these tests.
const texts = `
eval "$(sed '$d' ` + repo + `/install.sh)"
INIT=$1 COMMAND=server SERVICE=kedge BIN_DIR=/usr/local/bin CONFIG_DIR=/etc/kedge SERVICE_FILE=/etc/systemd/system/kedge.service
ENV_FILE=$SERVICE_FILE.env KILLALL=$BIN_DIR/kedge-killall.sh
systemctl() { echo "systemd 254 (254.1)"; }
`

// shells are those that read install.sh on the machines we know.
func shells() [][]string { return [][]string{{"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} }

func generate(t *testing.T, shell []string, script string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shell[0], append(shell[1:], "-c", texts+script, "texts", "systemd")...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", shell, err, out)
	}
	return string(out)
}

// TestTexts compares what install.sh writes with testdata, in every shell; -update rewrites it.
func TestTexts(t *testing.T) {
	env := []string{
		`INSTALL_K3S_EXEC=--kubelet-arg "max-pods=20 x" --tls-san='a b' $(date) ; * %n`,
		`K3S_TOKEN=a"b$c` + "`d" + `\e'f`, "KEDGE_NODE_NAME=one", "HTTPS_PROXY=http://p:3128", "KEDGE_EMPTY=", "OTHER=x", "K3S_TEXT=two\nK3S_LINES=2",
	}
	for name, call := range map[string]string{
		"kedge.service": "systemd_unit", "kedge.openrc": "openrc_service", "kedge.env": "kept_variables",
		"kedge-killall.sh": "killall_script", "kedge-uninstall.sh": "uninstall_script", "kedge.logrotate": "logrotate_rule",
	} {
		for _, shell := range shells() {
			got := generate(t, shell, `parse_command "$(setting EXEC '')" --label "it's \"q\""`+"\n"+call, env...)
			golden.Check(t, name+".golden", got)
		}
	}
}

// TestEnvironmentIsKept reads the environment file as OpenRC's service does, with a shell.
func TestEnvironmentIsKept(t *testing.T) {
	const value = `a"b$c` + "`d" + `\e'f #;*`
	file := filepath.Join(t.TempDir(), "env")
	for _, shell := range shells() {
		text := generate(t, shell, "kept_variables", "K3S_TOKEN="+value)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$0" && printf %s "$K3S_TOKEN"`, file).Output()
		if err != nil || string(out) != value {
			t.Errorf("%v keeps %q as %q: %v", shell, value, out, err)
		}
	}
}

// TestCommand lets install.sh choose between server and agent as users of k3s expect.
func TestCommand(t *testing.T) {
	for name, c := range map[string]struct{ env, args, want string }{
		"nothing":          {"", "", "server "},
		"url":              {"K3S_URL=https://a:6443", "", "agent "},
		"own url":          {"KEDGE_URL=https://a:6443", "--debug", "agent '--debug'"},
		"url and server":   {"K3S_URL=https://a:6443", "server --debug", "server '--debug'"},
		"flags":            {"INSTALL_K3S_EXEC=--disable dns", "--debug", "server '--disable' 'dns' '--debug'"},
		"own spelling":     {"INSTALL_KEDGE_EXEC=agent", "", "agent "},
		"command in EXEC":  {"INSTALL_K3S_EXEC=agent --server https://a", "", "agent '--server' 'https://a'"},
		"data directory":   {"", "--data-dir /x --debug", "server '--data-dir' '/x' '--debug'"},
		"argument of EXEC": {`INSTALL_K3S_EXEC=server --a "b c" d\ e`, "", "server '--a' 'b c' 'd e'"},
	} {
		got := generate(t, shells()[0], `parse_command "$(setting EXEC '')" `+c.args+`; echo "$COMMAND$ARGUMENTS"`, strings.Split(c.env+"\nX=", "\n")[0], "X=")
		if strings.TrimSpace(got) != strings.TrimSpace(c.want) {
			t.Errorf("%s: %q, want %q", name, strings.TrimSpace(got), c.want)
		}
	}
}

// TestShellcheck checks all shell scripts of the project, and those that install.sh writes.
func TestShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("needs shellcheck from scripts/install-test-deps.sh")
	}
	scripts, err := filepath.Glob(repo + "/scripts/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	scripts = append(scripts, repo+"/install.sh", "testdata/kedge-killall.sh.golden", "testdata/kedge-uninstall.sh.golden")
	cmd := exec.CommandContext(t.Context(), "shellcheck", append([]string{"--external-sources", "--source-path=" + repo}, scripts...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}
