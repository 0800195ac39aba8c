package cri

import (
	"context"
	"testing"

	serverconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"

	"github.com/kedge-io/kedge/pkg/cri/registries"
	"github.com/kedge-io/kedge/pkg/cri/runtimes"
	"github.com/kedge-io/kedge/test/golden"
)

func example() Config {
	return Config{
		Root: "/d/containerd", State: "/run/kedge/containerd", Socket: "/run/kedge/containerd/containerd.sock", ConfigFile: "/d/etc/config.toml",
		Runc: "/d/bin/runc", Shim: "/d/bin/containerd-shim-runc-v2", CNIBinDir: "/d/bin", CNIConfDir: "/d/etc/cni/net.d",
		PauseImage: "kedge.local/pause:1", RegistryDir: "/d/etc/certs.d", Snapshotter: "overlayfs", SystemdCgroup: true,
	}
}

func TestConfigurationGolden(t *testing.T) {
	got, err := render(example(), map[string]registries.Auth{"mirror.example:5000": {Username: "shop", Password: "secret"}},
		[]runtimes.Runtime{{Name: "crun", Type: "io.containerd.runc.v2", Binary: "/usr/bin/crun"}, {Name: "kata", Type: "io.containerd.kata.v2", Shim: "/opt/kata/bin/containerd-shim-kata-v2"}})
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "config.toml", string(got))
	var cfg serverconfig.Config
	if err := serverconfig.LoadConfig(context.Background(), "testdata/config.toml", &cfg); err != nil {
		t.Errorf("containerd does not accept it: %v", err)
	}
	if cfg.Root != "/d/containerd" || cfg.Version != 4 {
		t.Errorf("containerd reads root %q, version %d", cfg.Root, cfg.Version)
	}
}

func TestRelativePathsAreRefused(t *testing.T) {
	cfg := example()
	cfg.Root = "containerd"
	if _, err := New(cfg, nil); err == nil {
		t.Error("a relative root was accepted")
	}
}

func TestIsArchive(t *testing.T) {
	for name, want := range map[string]bool{"a.tar": true, "a.tar.gz": true, "a.tgz": true, "a.tar.zst": true, ".a.tar": false, "a.tar.part": false, "README.md": false} {
		if got := isArchive(name); got != want {
			t.Errorf("isArchive(%q) = %v", name, got)
		}
	}
}
