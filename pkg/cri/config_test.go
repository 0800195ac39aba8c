package cri

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	serverconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func example() Config {
	return Config{
		Root: "/d/containerd", State: "/run/kedge/containerd", Socket: "/run/kedge/containerd/containerd.sock", ConfigFile: "/d/etc/config.toml",
		Runc: "/d/bin/runc", Shim: "/d/bin/containerd-shim-runc-v2", CNIBinDir: "/d/bin", CNIConfDir: "/d/etc/cni/net.d",
		PauseImage: "kedge.local/pause:1", RegistryDir: "/d/etc/certs.d", Snapshotter: "overlayfs", SystemdCgroup: true,
	}
}

func TestConfigurationGolden(t *testing.T) {
	got, err := render(example())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "config.toml")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs, run with -update and read the diff; got:\n%s", path, got)
	}
	var cfg serverconfig.Config
	if err := serverconfig.LoadConfig(context.Background(), path, &cfg); err != nil {
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
