package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const registriesExample = `
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://127.0.0.1:5001/hub/v2"]
  "*":
    endpoint: ["https://mirror.example:5000"]
configs:
  "mirror.example:5000":
    auth: {username: shop, password: secret}
    tls: {ca_file: /etc/ca.crt, cert_file: /etc/c.crt, key_file: /etc/c.key}
  own.example:
    tls: {insecure_skip_verify: true}
`

func readExample(t *testing.T, content string) (Registries, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadRegistries(path)
}

func TestRegistriesBecomeHostsFiles(t *testing.T) {
	r, err := readExample(t, registriesExample)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "certs.d")
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	tls := "  ca = \"/etc/ca.crt\"\n  client = [[\"/etc/c.crt\", \"/etc/c.key\"]]\n"
	first := "[host.\"https://mirror.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n" + tls
	for folder, want := range map[string]string{
		"docker.io":           first + "[host.\"http://127.0.0.1:5001/hub/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n",
		"_default":            first,
		"mirror.example:5000": first,
		"own.example":         "[host.\"https://own.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n",
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

func TestLoginsAreInTheConfiguration(t *testing.T) {
	r, err := readExample(t, registriesExample)
	if err != nil {
		t.Fatal(err)
	}
	cfg := example()
	cfg.Registries = r
	got, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := `[plugins."io.containerd.cri.v1.images".registry.configs."mirror.example:5000".auth]
  username = "shop"
  password = "secret"`
	if !strings.Contains(string(got), want) {
		t.Errorf("no login in:\n%s", got)
	}
}

func TestBadRegistriesNameTheField(t *testing.T) {
	for content, want := range map[string]string{
		"mirors: {}": "mirors",
		"mirrors: {docker.io: {endpoint: [mirror]}}": `mirrors["docker.io"].endpoint "mirror"`,
		"mirrors: {docker.io: {rewrite: {a: b}}}":    `mirrors["docker.io"].rewrite`,
		"configs: {\"https://x\": {}}":               `configs["https://x"]`,
		"configs: {x: {tls: {cert_file: /a}}}":       `configs["x"].tls`,
	} {
		if _, err := readExample(t, content); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", content, err)
		}
	}
	if _, err := ReadRegistries("/no/such/file"); err != nil {
		t.Errorf("a missing file gave %v", err)
	}
}
