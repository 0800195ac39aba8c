// Package cgroup gives a machine of the lab a control group of its own in every hierarchy of the host, which becomes the root of the
// machine's cgroup namespace. Version 1 and version 2 work. Only test/lab may import it.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// root is where the host mounts its hierarchies.
const root = "/sys/fs/cgroup"

// unified reports whether the host has version 2 alone.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// hierarchies are the directories of all hierarchies of the host.
func hierarchies() ([]string, error) {
	if unified() {
		return []string{root}, nil
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && e.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", root)
	}
	return dirs, nil
}

// Add makes the group name, a relative path, in every hierarchy and puts the process into it.
func Add(name string, pid int) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		at := dir
		for element := range strings.SplitSeq(name, "/") {
			at = filepath.Join(at, element)
			if err := prepare(at); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(at, "cgroup.procs"), fmt.Appendf(nil, "%d", pid), 0o644); err != nil {
			return fmt.Errorf("put process into cgroup: %w", err)
		}
	}
	return nil
}

// prepare makes a group that can take processes and has what its parent has.
func prepare(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(dir, f); err != nil {
			return err
		}
	}
	if unified() {
		return Delegate(filepath.Dir(dir))
	}
	return nil
}

// inherit copies a version 1 setting that starts empty and forbids processes while it is.
func inherit(dir, file string) error {
	if unified() {
		return nil
	}
	have, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || strings.TrimSpace(string(have)) != "" {
		return nil // another hierarchy, or set before
	}
	parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
		return fmt.Errorf("set %s: %w", file, err)
	}
	return nil
}

// Delegate gives the children of a version 2 group all controllers that it has.
func Delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	for c := range strings.FieldsSeq(string(have)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("delegate cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// Remove removes the group name and everything below it. The processes in it have ended or are just ending.
func Remove(name string) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, remove(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

func remove(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := removeOnce(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeOnce removes the tree from its leaves up.
func removeOnce(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeOnce(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return unix.Rmdir(dir)
}
