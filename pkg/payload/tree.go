package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// unpackWorkers is how many files are written at a time.
const unpackWorkers = 4

// tree is the directory of unpacked payloads: one directory per content hash,
// and the links current and previous.
type tree struct {
	root string
	log  *slog.Logger
}

// lock keeps other kedge processes out of the tree until the returned function
// is called.
func (t tree) lock() (func(), error) {
	if err := os.MkdirAll(t.root, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for programs: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(t.root, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// unpack makes the directory of a manifest complete and says whether it had to
// change anything. A missing directory appears by one rename when it is whole
// and on disk; in one that is there, files that are missing or have another size
// are replaced one by one, so that programs that run keep their files.
func (t tree) unpack(src fs.FS, m *Manifest, encoded []byte) (bool, error) {
	final := filepath.Join(t.root, m.Hash)
	if _, err := os.Lstat(final); err == nil {
		return t.repair(src, m, encoded, final)
	}
	if err := t.removeLeftovers(); err != nil {
		return false, err
	}
	temp := filepath.Join(t.root, ".new-"+m.Hash)
	if err := writeAll(src, m.atStart(), temp); err != nil {
		return false, err
	}
	if err := writeFile(bytes.NewReader(encoded), filepath.Join(temp, ManifestName), 0o644, ""); err != nil {
		return false, err
	}
	if err := syncDirs(temp); err != nil {
		return false, err
	}
	if err := os.Rename(temp, final); err != nil {
		return false, fmt.Errorf("put %s in place: %w", final, err)
	}
	return true, syncDir(t.root)
}

// removeLeftovers removes what an interrupted unpacking left.
func (t tree) removeLeftovers() error {
	left, err := filepath.Glob(filepath.Join(t.root, ".new-*"))
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove interrupted unpacking: %w", err)
		}
	}
	return nil
}

// repair replaces the files of an unpacked payload that are not as listed.
func (t tree) repair(src fs.FS, m *Manifest, encoded []byte, dir string) (bool, error) {
	damaged := damagedFiles(m.atStart(), dir)
	marker := filepath.Join(dir, ManifestName)
	stored, err := os.ReadFile(marker)
	if err != nil || !bytes.Equal(stored, encoded) {
		// The marker is gone or wrong: trust nothing.
		damaged = m.atStart()
		if err := m.removeLazy(dir); err != nil {
			return false, err
		}
	}
	if len(damaged) == 0 {
		return false, nil
	}
	t.log.Warn("bundled programs are damaged on disk, unpacking them again", "dir", dir, "files", len(damaged))
	if err := writeAll(src, damaged, dir); err != nil {
		return false, err
	}
	if err := writeFile(bytes.NewReader(encoded), marker, 0o644, ""); err != nil {
		return false, err
	}
	return true, syncDirs(dir)
}

// atStart are the files that Ensure unpacks.
func (m *Manifest) atStart() []File {
	return slices.DeleteFunc(slices.Clone(m.Files), func(f File) bool { return f.Lazy })
}

// removeLazy removes the other files.
func (m *Manifest) removeLazy(dir string) error {
	for _, f := range m.Files {
		if !f.Lazy {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return fmt.Errorf("remove damaged program: %w", err)
		}
	}
	return nil
}

// damagedFiles are the files whose type, size or mode is not as listed. It does
// not read them: that would cost a slow start on every boot.
func damagedFiles(files []File, dir string) []File {
	return slices.DeleteFunc(slices.Clone(files), func(f File) bool {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if f.Link != "" {
			target, err := os.Readlink(path)
			return err == nil && target == f.Link
		}
		info, err := os.Lstat(path)
		return err == nil && info.Mode().IsRegular() && info.Size() == f.Size && info.Mode().Perm() == f.perm()
	})
}

func (f File) perm() fs.FileMode {
	if f.Executable {
		return 0o755
	}
	return 0o644
}

// writeAll writes files below dir, several at a time, each synced and renamed
// into place.
func writeAll(src fs.FS, files []File, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory for programs: %w", err)
	}
	queue := make(chan File)
	errs := make([]error, unpackWorkers)
	var workers sync.WaitGroup
	for i := range unpackWorkers {
		workers.Go(func() {
			for f := range queue {
				if errs[i] == nil {
					errs[i] = writeOne(src, f, dir)
				}
			}
		})
	}
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b File) int { return int(b.Size - a.Size) }) {
		queue <- f // largest first, so that the workers end together
	}
	close(queue)
	workers.Wait()
	return errors.Join(errs...)
}

func writeOne(src fs.FS, f File, dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory for programs: %w", err)
	}
	if f.Link != "" {
		return writeLink(f.Link, path)
	}
	in, err := src.Open(f.Path)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.Path, err)
	}
	defer in.Close()
	return writeFile(in, path, f.perm(), f.SHA256)
}

// writeLink makes or replaces a symbolic link in one step.
func writeLink(target, path string) error {
	temp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Symlink(target, temp); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// writeFile writes a file beside its place, checks its checksum if one is given,
// syncs it and renames it.
func writeFile(in io.Reader, path string, mode fs.FileMode, sum string) error {
	temp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove interrupted unpacking: %w", err)
	}
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer out.Close()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, hash), in); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); sum != "" && got != sum {
		return fmt.Errorf("write %s: checksum is %s, not %s: the bundle is damaged, install kedge again", path, got, sum)
	}
	if err := errors.Join(out.Chmod(mode), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDirs syncs all directories below dir, and dir.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// isHash says whether a name is that of an unpacked payload.
func isHash(name string) bool {
	return len(name) == 32 && strings.Trim(name, "0123456789abcdef") == ""
}
