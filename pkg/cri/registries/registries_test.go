package registries

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const example = `
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://127.0.0.1:5001/hub/v2"]
  renamed.example:
    endpoint: ["https://mirror.example:5000"]
    rewrite: {"^(.*)$": "copies/$1"}
  "*":
    endpoint: ["https://mirror.example:5000"]
configs:
  "mirror.example:5000":
    auth: {username: shop, password: secret}
    tls: {ca_file: DIR/ca.crt, cert_file: DIR/c.crt, key_file: DIR/c.key}
  own.example:
    tls: {insecure_skip_verify: true}
  docker.io:
    auth: {identity_token: hub}
`

func read(t *testing.T, content string) (Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "registries.yaml")
	for name, data := range map[string]string{path: strings.ReplaceAll(content, "DIR", dir), filepath.Join(dir, "ca.crt"): "", filepath.Join(dir, "c.crt"): "", filepath.Join(dir, "c.key"): ""} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Read(path)
	return c, dir, err
}

func TestConfigBecomesHostsFiles(t *testing.T) {
	c, files, err := read(t, example)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "certs.d")
	if err := c.Write(dir, func(host string, n int) string { return "http://here/" + routeName(host, n) }); err != nil {
		t.Fatal(err)
	}
	const patience = "dial_timeout = \"10s\"\n"
	tls := "ca = \"" + files + "/ca.crt\"\n  client = [[\"" + files + "/c.crt\", \"" + files + "/c.key\"]]\n"
	first := "[host.\"https://mirror.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  " + patience + "  " + tls
	for folder, want := range map[string]string{
		"docker.io":           patience + first + "[host.\"http://127.0.0.1:5001/hub/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  " + patience,
		"renamed.example":     patience + "[host.\"http://here/renamed.example/0\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n",
		"_default":            patience + first,
		"mirror.example:5000": patience + strings.ReplaceAll(tls, "\n  ", "\n") + first,
		"own.example":         patience + "skip_verify = true\n" + first,
	} {
		got, err := os.ReadFile(filepath.Join(dir, folder, "hosts.toml"))
		if err != nil {
			t.Error(err)
		}
		if string(got) != want {
			t.Errorf("%s:\n%s\nwant:\n%s", folder, got, want)
		}
	}
}

func TestLogins(t *testing.T) {
	c, _, err := read(t, example)
	if err != nil {
		t.Fatal(err)
	}
	got := c.Logins()
	if len(got) != 3 || got["mirror.example:5000"].Password != "secret" || got["registry-1.docker.io"].IdentityToken != "hub" {
		t.Errorf("%+v", got)
	}
}

func TestBadConfigNamesTheField(t *testing.T) {
	for content, want := range map[string]string{
		"mirors: {}": "mirors",
		"mirrors: {docker.io: {endpoint: [mirror]}}":      `mirrors["docker.io"].endpoint "mirror"`,
		"mirrors: {docker.io: {rewrite: {'(': b}}}":       `mirrors["docker.io"].rewrite`,
		"mirrors: {../x: {endpoint: [http://m]}}":         `mirrors["../x"]`,
		"configs: {\"https://x\": {}}":                    `configs["https://x"]`,
		"configs: {\"*\": {auth: {username: a}}}":         `configs["*"].auth`,
		"configs: {x: {tls: {cert_file: /a}}}":            `configs["x"].tls`,
		"configs: {x: {tls: {ca_file: /no/such/ca.crt}}}": `configs["x"].tls.ca_file`,
	} {
		if _, _, err := read(t, content); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", content, err)
		}
	}
	if _, err := Read("/no/such/file"); err != nil {
		t.Errorf("a missing file gave %v", err)
	}
}
