package payload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// point makes the link current name the directory of hash, previous what
// current named before, and removes directories that nobody needs.
func (t tree) point(hash string) error {
	old, err := os.Readlink(filepath.Join(t.root, "current"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read link to programs: %w", err)
	}
	if old == hash {
		return nil
	}
	if isHash(old) {
		if err := t.link("previous", old); err != nil {
			return err
		}
	}
	if err := t.link("current", hash); err != nil {
		return err
	}
	return t.retire()
}

// link makes or replaces a link in the tree and syncs it.
func (t tree) link(name, target string) error {
	if err := writeLink(target, filepath.Join(t.root, name)); err != nil {
		return err
	}
	return syncDir(t.root)
}

// retire removes unpacked payloads except current, previous and those that a
// running process was started from: the shim of a pod calls the runc beside it
// for as long as the pod runs.
func (t tree) retire() error {
	entries, err := os.ReadDir(t.root)
	if err != nil {
		return fmt.Errorf("list programs: %w", err)
	}
	keep, err := t.keep()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() || !isHash(entry.Name()) || keep[entry.Name()] {
			continue
		}
		// Renamed first: a half-removed directory must not look unpacked.
		gone := filepath.Join(t.root, ".new-gone-"+entry.Name())
		if err := os.Rename(filepath.Join(t.root, entry.Name()), gone); err != nil {
			return fmt.Errorf("remove old programs: %w", err)
		}
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("remove old programs: %w", err)
		}
	}
	return nil
}

// keep is the set of hashes that must stay.
func (t tree) keep() (map[string]bool, error) {
	keep := map[string]bool{}
	for _, name := range []string{"current", "previous"} {
		if target, err := os.Readlink(filepath.Join(t.root, name)); err == nil {
			keep[target] = true
		}
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list running programs: %w", err)
	}
	root, err := filepath.EvalSymlinks(t.root) // as the kernel names programs
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", t.root, err)
	}
	for _, process := range processes {
		exe, err := os.Readlink(filepath.Join("/proc", process.Name(), "exe"))
		if err != nil {
			continue // not a process, a kernel thread, or already ended
		}
		if rest, ok := strings.CutPrefix(exe, root+"/"); ok {
			hash, _, _ := strings.Cut(rest, "/")
			keep[hash] = true
		}
	}
	return keep, nil
}
