package cri

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestStateCanBePassed: pods in user namespaces pass through the state directory, also when it and its parent were there before.
func TestStateCanBePassed(t *testing.T) {
	for _, before := range []string{"", "kedge", "kedge/containerd"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, before), 0o700); err != nil {
			t.Fatal(err)
		}
		cfg := example()
		cfg.Root, cfg.State = filepath.Join(dir, "root"), filepath.Join(dir, "kedge", "containerd")
		cfg.Socket, cfg.ConfigFile = filepath.Join(cfg.State, "containerd.sock"), filepath.Join(dir, "etc", "config.toml")
		cfg.CNIConfDir, cfg.RegistryDir = filepath.Join(dir, "cni"), filepath.Join(dir, "certs.d")
		if _, err := New(cfg, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{cfg.State: 0o711, filepath.Dir(cfg.State): 0o711, cfg.CNIConfDir: 0o700} {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%q was there: %s has mode %v, %v, want %v", before, path, info.Mode(), err, want)
			}
		}
	}
}
