package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// volumeMode lets a container of any user write, as with other local-path provisioners. The storage path above it
	// is closed to other users of the host.
	volumeMode = 0o777
	// rootMode is the mode of a storage path that kedge makes.
	rootMode = 0o700
)

// makeDirectory makes a volume's directory; one that exists is left as it is. The names are resolved inside root, so
// neither ".." nor a symbolic link leads out of it.
func makeDirectory(root, name string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open storage path: %w", err)
	}
	defer r.Close()
	if info, err := r.Lstat(name); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s exists and is not a directory: move it away", filepath.Join(root, name))
		}
		return nil
	}
	// A directory appears under its final name only when its mode is right: kedge may be killed at any point.
	fresh := ".new-" + name[:min(len(name), maxName-len(".new-"))]
	if err := r.Mkdir(fresh, rootMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make volume directory: %w", err)
	}
	if err := r.Chmod(fresh, volumeMode); err != nil { // Mkdir's mode went through the umask
		return fmt.Errorf("open volume directory to all users: %w", err)
	}
	if err := r.Rename(fresh, name); err != nil {
		return fmt.Errorf("name volume directory: %w", err)
	}
	return syncDirectory(r)
}

// removeDirectory removes a volume's directory with its content; an absent one is fine. It refuses while something is
// mounted inside, because that content belongs to somebody else.
func removeDirectory(root, name string, mounts []string) error {
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("find storage path: %w", err)
	}
	path := filepath.Join(resolved, name)
	for _, m := range mounts {
		if m == path || strings.HasPrefix(m, path+"/") {
			return fmt.Errorf("%s is a mount point: unmount it", m)
		}
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open storage path: %w", err)
	}
	defer r.Close()
	if err := r.RemoveAll(name); err != nil {
		return fmt.Errorf("remove volume directory: %w", err)
	}
	return syncDirectory(r)
}

// syncDirectory makes the last changes of names in r survive a power cut.
func syncDirectory(r *os.Root) error {
	d, err := r.Open(".")
	if err != nil {
		return fmt.Errorf("open storage path: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync storage path: %w", err)
	}
	return nil
}

// readMounts returns the mount points that this process sees.
func readMounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMounts(data), nil
}

// parseMounts reads mountinfo as proc_pid_mountinfo(5) describes it: the fifth field is the mount point, in which
// space, tab, newline and backslash are written as octal numbers.
func parseMounts(data []byte) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []string
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) > 4 {
			out = append(out, unescape.Replace(f[4]))
		}
	}
	return out
}
