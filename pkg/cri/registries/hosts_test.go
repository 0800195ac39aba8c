package registries

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

// TestContainerdReadsIt asks containerd where it would pull from.
func TestContainerdReadsIt(t *testing.T) {
	c, _, err := read(t, `
mirrors:
  docker.io: {endpoint: ["https://one.example", "http://two.example:5000/hub/v2"]}
  renamed.example: {endpoint: ["https://one.example"], rewrite: {a: b}}
  "own.example:5000": {endpoint: ["http://own.example:5000"]}
  "*": {endpoint: ["https://any.example"]}
configs:
  login.example: {auth: {username: a, password: b}}
  unchecked.example: {tls: {insecure_skip_verify: true}}
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "certs.d")
	if err := c.Write(dir, func(host string, n int) string { return "http://127.0.0.1:9/key/" + routeName(host, n) + "/v2" }); err != nil {
		t.Fatal(err)
	}
	hosts := config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(dir)})
	for registry, want := range map[string]string{
		"docker.io":         "https://one.example/v2 http://two.example:5000/hub/v2 https://registry-1.docker.io/v2",
		"renamed.example":   "http://127.0.0.1:9/key/renamed.example/0/v2 https://renamed.example/v2",
		"own.example:5000":  "http://own.example:5000/v2 https://own.example:5000/v2",
		"login.example":     "https://any.example/v2 https://login.example/v2",
		"unchecked.example": "https://any.example/v2 https://unchecked.example/v2",
		"some.example:5000": "https://any.example/v2 https://some.example:5000/v2",
	} {
		found, err := hosts(registry)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range found {
			got = append(got, h.Scheme+"://"+h.Host+h.Path)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", registry, got, want)
		}
	}
}
