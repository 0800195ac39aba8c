// Package payload finds or unpacks the programs that travel inside the kedge
// binary: runc, the containerd shim, the CNI plugins, nft, crictl and the
// sandbox image. It is a foundation: features, server, agent and cli may import
// it, and it imports nothing of kedge.
package payload

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says where programs are unpacked to.
type Config struct {
	// DataDir is kedge's data directory; programs go to DataDir/data/<hash>.
	DataDir string
	// PreferHostBin uses the host's own runc and nft where it has them.
	PreferHostBin bool
	// Log is where an unpacking is reported.
	Log *slog.Logger
}

// hostMayReplace says which programs PreferHostBin takes from the host.
func hostMayReplace(name string) bool { return name == "runc" || name == "nft" }

// hostDirs are searched besides PATH for the host's own programs.
func hostDirs() []string {
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// Payload is an unpacked payload.
type Payload struct {
	tree       tree
	dir        string
	manifest   *Manifest
	preferHost bool
}

// Ensure unpacks the payload into DataDir/data/<hash> unless it is there
// already, points DataDir/data/current at it, and removes unpacked payloads that
// are neither current nor previous nor in use by a running process. An unpacking
// that was cut short, or a file that lost its size, is done again. Several
// processes may call it at once.
func Ensure(cfg Config) (*Payload, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("payload: DataDir is empty: give kedge's data directory")
	}
	if cfg.Log == nil {
		return nil, errors.New("payload: Log is nil: give a logger")
	}
	src, err := findSource()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dataDir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory: %w", err)
	}
	t := tree{root: filepath.Join(dataDir, "data"), log: cfg.Log}
	dir, manifest, err := t.install(src)
	if err != nil {
		return nil, fmt.Errorf("unpack bundled programs from %s: %w", src.name, err)
	}
	return &Payload{tree: t, dir: dir, manifest: manifest, preferHost: cfg.PreferHostBin}, nil
}

// install makes the source's contents present and current.
func (t tree) install(src *source) (string, *Manifest, error) {
	manifest, encoded, err := readManifest(src)
	if err != nil {
		return "", nil, err
	}
	unlock, err := t.lock()
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	start := time.Now()
	changed, err := t.unpack(src, manifest, encoded)
	if err != nil {
		return "", nil, err
	}
	if changed {
		t.log.Info("unpacked bundled programs", "hash", manifest.Hash, "took", time.Since(start).Round(time.Millisecond))
	}
	if err := t.point(manifest.Hash); err != nil {
		return "", nil, err
	}
	return filepath.Join(t.root, manifest.Hash), manifest, nil
}

// BinDir is the directory of the programs; its path changes with their contents.
func (p *Payload) BinDir() string { return filepath.Join(p.dir, "bin") }

// Path is the absolute path of a program, for example "runc". Programs that only
// people use are unpacked here and not by Ensure.
func (p *Payload) Path(name string) (string, error) {
	if p.preferHost && hostMayReplace(name) {
		if path, ok := p.hostProgram(name); ok {
			return path, nil
		}
	}
	if err := p.unpackLazy("bin/" + name); err != nil {
		return "", err
	}
	path := filepath.Join(p.BinDir(), name)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("program %q is not in the payload at %s: build it with scripts/build-payload.sh, or remove %s to have it unpacked again", name, p.BinDir(), p.dir)
	case err != nil:
		return "", fmt.Errorf("look for program %q: %w", name, err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("%s is not an executable file: remove %s to have it unpacked again", path, p.dir)
	}
	return path, nil
}

// unpackLazy unpacks a file that Ensure left out, unless that was done before.
func (p *Payload) unpackLazy(path string) error {
	at := slices.IndexFunc(p.manifest.Files, func(f File) bool { return f.Path == path && f.Lazy })
	if at < 0 {
		return nil
	}
	unlock, err := p.tree.lock()
	if err != nil {
		return err
	}
	defer unlock()
	damaged := damagedFiles(p.manifest.Files[at:at+1], p.dir)
	if len(damaged) == 0 {
		return nil
	}
	src, err := findSource()
	if err != nil {
		return err
	}
	defer src.Close()
	if err := writeAll(src, damaged, p.dir); err != nil {
		return fmt.Errorf("unpack %s from %s: %w", path, src.name, err)
	}
	return syncDir(filepath.Join(p.dir, filepath.Dir(path)))
}

func (p *Payload) hostProgram(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) && filepath.Dir(path) != p.BinDir() {
		return path, true
	}
	for _, dir := range hostDirs() {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// SearchPath is the value of PATH with which runc, nft and the others are found
// by name, made from the host's value: bundled programs first, or last with
// PreferHostBin. What a host always has, but a bare container may lack, is last.
func (p *Payload) SearchPath(host string) string {
	spare := filepath.Join(p.dir, "spare")
	dirs := filepath.SplitList(host)
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" || dir == p.BinDir() || dir == spare })
	if !p.preferHost {
		return strings.Join(slices.Concat([]string{p.BinDir()}, dirs, []string{spare}), string(os.PathListSeparator))
	}
	for _, dir := range hostDirs() {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(append(dirs, p.BinDir(), spare), string(os.PathListSeparator))
}

// PauseImage is the name of the sandbox image and the path of its archive (a
// docker archive, as `ctr images import` reads it).
func (p *Payload) PauseImage() (ref, archivePath string) {
	return p.manifest.Pause, filepath.Join(p.dir, "images", "pause.tar")
}
