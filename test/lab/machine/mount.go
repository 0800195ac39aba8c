package machine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/test/lab/cgroup"
)

// cgroupRoot is where programs look for control groups.
const cgroupRoot = "/sys/fs/cgroup"

// mountAll builds the machine's files. Sources are opened before anything is hidden by a mount.
func mountAll(cfg Config) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cut mounts off the host: %w", err)
	}
	hierarchies, err := hostHierarchies()
	if err != nil {
		return err
	}
	sources := map[string]*os.File{}
	for place, source := range cfg.Mounts {
		if sources[place], err = openPath(source); err != nil {
			return err
		}
	}
	for place, name := range map[string]string{"/var": "var", "/tmp": "tmp"} {
		if sources[place], err = openState(cfg.State, name); err != nil {
			return err
		}
	}
	if err := mountEtc(cfg); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/opt", "/root", "/dev/shm"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for place, source := range sources {
		if err := bind(source, place); err != nil {
			return err
		}
	}
	if err := mountKernel(hierarchies); err != nil {
		return err
	}
	if err := makeVar(); err != nil {
		return err
	}
	return finish()
}

// finish makes the host's files read-only, which this mount of them alone is told, and lets later mounts spread as on a host
// with systemd.
func finish() error {
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make / read-only: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openState(state, name string) (*os.File, error) {
	dir := filepath.Join(state, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return openPath(dir)
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// bind shows source at place, which is made when it is below /opt.
func bind(source *os.File, place string) error {
	info, err := os.Stat(fdPath(source))
	if err != nil {
		return fmt.Errorf("look at %s: %w", source.Name(), err)
	}
	if strings.HasPrefix(place, "/opt/") {
		if info.IsDir() {
			err = os.MkdirAll(place, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(place), 0o755); err == nil {
			err = os.WriteFile(place, nil, 0o755)
		}
		if err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := unix.Mount(fdPath(source), place, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source.Name(), place, err)
	}
	return source.Close()
}

// mountEtc lays a writable layer over the host's /etc and gives it what belongs to this machine.
func mountEtc(cfg Config) error {
	layer, err := openState(cfg.State, "etc")
	if err != nil {
		return err
	}
	work, err := openState(cfg.State, "etc.work")
	if err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", fdPath(layer), fdPath(work))
	if err := unix.Mount("overlay", "/etc", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	// A site of the host is not this machine's: its settings are hidden once, before the machine has its own.
	if _, err := os.Lstat(fdPath(layer) + "/kedge"); errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll("/etc/kedge"); err != nil {
			return fmt.Errorf("hide the host's /etc/kedge: %w", err)
		}
	}
	id := sha256.Sum256([]byte(cfg.State))
	hosts := append([]string{"127.0.0.1 localhost", "::1 localhost", "127.0.1.1 " + cfg.Hostname}, cfg.Hosts...)
	for name, text := range map[string]string{
		"hostname": cfg.Hostname, "machine-id": fmt.Sprintf("%x", id[:16]),
		"hosts": strings.Join(hosts, "\n"), "resolv.conf": "nameserver " + cfg.Nameserver,
	} {
		path := filepath.Join("/etc", name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be a link into /run
			return fmt.Errorf("replace %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return errors.Join(layer.Close(), work.Close())
}

// mountKernel shows this machine's processes, network interfaces and control groups.
func mountKernel(hierarchies map[string]string) error {
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if len(hierarchies) == 0 {
		return mountUnified()
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	for name, options := range hierarchies {
		dir, kind := filepath.Join(cgroupRoot, name), "cgroup"
		if options == "" {
			kind = "cgroup2"
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup mount point: %w", err)
		}
		if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

// mountUnified mounts version 2, where only leaves may hold processes: this one moves out of the way.
func mountUnified() error {
	if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	leaf := filepath.Join(cgroupRoot, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("1"), 0o644); err != nil {
		return fmt.Errorf("move into cgroup: %w", err)
	}
	return cgroup.Delegate(cgroupRoot)
}

// hostHierarchies are the host's version 1 mounts: directory name to mount options, which must be the same again. A version 2
// mount beside them has no options. The result is empty on a host with version 2 alone.
func hostHierarchies() (map[string]string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(mounts)) {
		before, after, ok := strings.Cut(line, " - ")
		f, source := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(source) < 3 || filepath.Dir(f[4]) != cgroupRoot {
			continue
		}
		switch source[0] {
		case "cgroup":
			found[filepath.Base(f[4])] = hierarchyOptions(source[2])
		case "cgroup2":
			found[filepath.Base(f[4])] = ""
		}
	}
	return found, nil
}

// hierarchyOptions leaves of the options of a mounted hierarchy those that name it.
func hierarchyOptions(mounted string) string {
	var keep []string
	for o := range strings.SplitSeq(mounted, ",") {
		switch {
		case o == "rw", o == "ro", o == "clone_children", o == "xattr", strings.HasPrefix(o, "release_agent="):
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// makeVar makes what every distribution has in /var.
func makeVar() error {
	for _, dir := range []string{"lib", "log", "tmp", "cache", "spool"} {
		if err := os.MkdirAll(filepath.Join("/var", dir), 0o755); err != nil {
			return fmt.Errorf("make /var: %w", err)
		}
	}
	if err := os.Symlink("/run", "/var/run"); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make /var/run: %w", err)
	}
	return nil
}
