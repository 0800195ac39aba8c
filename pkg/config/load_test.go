package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

// isolated are sources that see nothing of this machine.
func isolated(t *testing.T, env map[string]string, flags map[string][]string) Sources {
	return Sources{
		Flags:       flags,
		LookupEnv:   func(k string) (string, bool) { v, ok := env[k]; return v, ok },
		Hostname:    func() (string, error) { return "Edge-1", nil },
		DefaultFile: filepath.Join(t.TempDir(), "missing.yaml"),
	}
}

func checkJSON(t *testing.T, name string, got any) {
	t.Helper()
	data, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	golden.Check(t, name, string(data))
}

func TestDefaults(t *testing.T) {
	cfg, err := LoadServer(isolated(t, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	checkJSON(t, "defaults.json", cfg)
}

func TestMergeOfFileEnvironmentAndFlags(t *testing.T) {
	src := isolated(t, map[string]string{
		"K3S_NODE_NAME":       "from-k3s-env",
		"KEDGE_NODE_NAME":     "from-kedge-env",
		"K3S_KUBECONFIG_MODE": "640",
		"KEDGE_DEBUG":         "",
		"K3S_DATA_DIR":        "/env",
	}, map[string][]string{
		"data-dir":     {"/ignored", "/flag"},
		"kubelet-arg":  {"v=4", "feature-gates=A=true,B=false"},
		"cluster-cidr": {"10.1.0.0/16,fd01::/56"},
		"service-cidr": {"10.2.0.0/16", "fd02::/112"},
	})
	src.File = "testdata/site/config.yaml"
	cfg, err := LoadServer(src)
	if err != nil {
		t.Fatal(err)
	}
	checkJSON(t, "merged.json", cfg)
}

func TestConfigFileFromEnvironment(t *testing.T) {
	for _, name := range ConfigEnv() {
		src := isolated(t, map[string]string{name: "testdata/site/config.yaml"}, nil)
		cfg, err := LoadServer(src)
		if err != nil || cfg.Port != 7443 {
			t.Errorf("%s: port %d, %v", name, cfg.Port, err)
		}
		src = isolated(t, map[string]string{name: "/nowhere.yaml"}, nil)
		if _, err := LoadServer(src); err == nil || !strings.Contains(err.Error(), "/nowhere.yaml, named by "+name+", does not exist") {
			t.Errorf("%v", err)
		}
	}
	src := isolated(t, nil, nil)
	src.File = "/nowhere.yaml"
	if _, err := LoadServer(src); err == nil || !strings.Contains(err.Error(), "named by --config, does not exist") {
		t.Errorf("%v", err)
	}
}

func TestFileErrorsSayWhereAndWhat(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"debug: true\nnode-nmae: x\n", "f.yaml:2: node-nmae: unknown key, did you mean node-name?"},
		{"zzz-something-else-entirely: x\n", "unknown key: keys are the flags"},
		{"write-kubeconfig-mode: rw\n", `f.yaml:1: write-kubeconfig-mode: "rw" is not a file mode in octal, for example 0640`},
		{"https-listen-port: 70000\n", `https-listen-port: "70000" is not a number from 1 to 65535`},
		{"debug: yes\n", `debug: "yes" is neither true nor false`},
		{"node-name: [a, b]\n", "node-name: it takes one value, not a list"},
		{"node-name+: a\n", "node-name+: it takes one value, not a list"},
		{"node-name:\n", "it has no value"},
		{"node-label: {a: b}\n", "want a value or a list"},
		{"node-label: [[a]]\n", "line 1: each item of the list must be one value"},
		{"debug: true\ndebug: false\n", "f.yaml:2: debug: the key is there twice"},
		{"- debug\n", "want lines of the form key: value"},
		{"a: b: c\n", "mapping values are not allowed"},
		{"docker: true\n", "f.yaml:1: docker: kedge has its own containerd and works with no other runtime"},
		{"token: a\ntoken-file: /b\n", "--token and --token-file are both set: keep one of them"},
	} {
		src := isolated(t, nil, nil)
		src.File = filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(src.File, []byte(tc.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadServer(src); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v\nwant %s", tc.file, err, tc.want)
		}
	}
}

func TestEmptyFileIsFine(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "---\n"} {
		if err := parseFile("f.yaml", []byte(content), ServerSettings(), map[string]given{}); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestAgentTakesOnlyNodeSettings(t *testing.T) {
	src := isolated(t, map[string]string{"K3S_NODE_NAME": "n1"}, map[string][]string{"node-label": {"a=b"}})
	cfg, err := LoadAgent(src)
	if err != nil || cfg.NodeName != "n1" || cfg.DataDir != DefaultDataDir {
		t.Errorf("%+v, %v", cfg, err)
	}
	if err := parseFile("f.yaml", []byte("cluster-cidr: 10.0.0.0/16"), AgentSettings(), map[string]given{}); err == nil {
		t.Error("an agent took cluster-cidr")
	}
}

func TestServersToJoin(t *testing.T) {
	for want, src := range map[string]Sources{
		"[https://a:6443]":                isolated(t, nil, map[string][]string{"server": {"https://a:6443"}}),
		"[https://b:6443]":                isolated(t, map[string]string{"K3S_URL": "https://b:6443"}, nil),
		"[https://c:6443 https://d:6443]": isolated(t, map[string]string{"K3S_URL": "https://a:1", "KEDGE_URL": "https://c:6443,https://d:6443"}, nil),
	} {
		if cfg, err := LoadServer(src); err != nil || fmt.Sprint(cfg.Servers) != want {
			t.Errorf("%v, %v, want %s", cfg.Servers, err, want)
		}
	}
	server, yes := []string{"https://a:6443"}, []string{"true"}
	for want, flags := range map[string]map[string][]string{
		"--server joins a cluster and --cluster-init makes one": {"server": server, "cluster-init": yes},
		"remove --server":                    {"server": server, "datastore-endpoint": {"https://e:2379"}},
		"need no --cluster-init":             {"cluster-init": yes, "datastore-endpoint": {"https://e:2379"}},
		"--cluster-reset leaves this server": {"cluster-reset": yes, "server": server},
		"use its own tools":                  {"cluster-reset": yes, "datastore-endpoint": {"https://e:2379"}},
	} {
		if _, err := LoadServer(isolated(t, nil, flags)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", flags, err)
		}
	}
}

func TestSettingsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range ServerSettings() {
		if seen[s.Name] || s.Short != "" && seen[s.Short] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name], seen[s.Short] = true, true
		if s.bind == nil || !s.Hidden() && !strings.HasSuffix(s.Usage, ".") {
			t.Errorf("%s needs a binding and a sentence", s.Name)
		}
		if s.Bool() && s.Default != "" {
			t.Errorf("%s: yes-or-no settings are no by default", s.Name)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"data-dir", "debug", "disable", "disable-agent", "node-name"}
	for name, want := range map[string]string{
		"datadir": "data-dir", "dissable": "disable", "node-nam": "node-name", "xyzzy-plugh-foo": "", "disabled-agent": "disable-agent",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestAgentIsToldWhereToJoin(t *testing.T) {
	cfg, err := LoadAgent(isolated(t, map[string]string{
		"K3S_URL": "https://a:6443,https://b:6443", "K3S_TOKEN": "theirs", "KEDGE_TOKEN": "ours", "K3S_TOKEN_FILE": "",
	}, map[string][]string{"with-node-id": {"true"}}))
	if err != nil || strings.Join(cfg.Servers, " ") != "https://a:6443 https://b:6443" || cfg.Token != "ours" || !cfg.WithNodeID {
		t.Errorf("%+v, %v", cfg, err)
	}
	server, err := LoadServer(isolated(t, map[string]string{"K3S_TOKEN": "s", "K3S_AGENT_TOKEN": "a"}, nil))
	if err != nil || server.Token != "s" || server.AgentToken != "a" {
		t.Errorf("%q, %q, %v", server.Token, server.AgentToken, err)
	}
	if _, err := LoadServer(isolated(t, nil, map[string][]string{"agent-token": {"a"}, "agent-token-file": {"/b"}})); err == nil {
		t.Error("two agent tokens were taken")
	}
}
