package addons

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"github.com/kedge-io/kedge/pkg/dropin"
)

const (
	// settle is how long a file must have been quiet before it is read, and away before it counts as deleted.
	settle = time.Second
	// debounce gathers the events of one save.
	debounce = 200 * time.Millisecond
)

// entry is one manifest file as the folder shows it.
type entry struct {
	rel     string // path below the folder, with slashes
	path    string // where to read it
	print   fingerprint
	skip    bool   // NAME.skip lies beside it
	problem string // why it cannot be looked at
}

// fingerprint changes whenever the content may have changed. The change time covers tools that set the modification time.
type fingerprint struct {
	size         int64
	mtime, ctime int64
	device       uint64
	inode        uint64
}

func fingerprintOf(info fs.FileInfo) fingerprint {
	p := fingerprint{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		p.ctime, p.device, p.inode = stat.Ctim.Nano(), uint64(stat.Dev), stat.Ino
	}
	return p
}

// sight is what one look at the folder shows.
type sight struct {
	entries []entry         // in path order
	skips   map[string]bool // paths that have a .skip file beside them, whether they exist or not
	dirs    []string        // to watch
	seen    map[string]bool // real paths of directories, against loops of links
}

// scan looks at the manifests below dir. Links are followed. A folder that cannot be read is an error, so that its files are
// not taken for deleted.
func scan(dir string) (*sight, error) {
	s := &sight{seen: map[string]bool{}, skips: map[string]bool{}}
	if err := s.walk(dir, ""); err != nil {
		return nil, fmt.Errorf("read manifests folder: %w", err)
	}
	slices.SortFunc(s.entries, func(a, b entry) int { return strings.Compare(a.rel, b.rel) })
	for i := range s.entries {
		s.entries[i].skip = s.skips[s.entries[i].rel]
	}
	return s, nil
}

func (s *sight) walk(dir, rel string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if s.seen[real] {
		return nil
	}
	s.seen[real] = true
	s.dirs = append(s.dirs, real)
	found, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	for _, item := range found {
		below := path.Join(rel, item.Name())
		if name, ok := strings.CutSuffix(below, ".skip"); ok {
			s.skips[name] = true
		}
		if strings.HasPrefix(item.Name(), ".") {
			continue
		}
		if err := s.visit(filepath.Join(real, item.Name()), below, item); err != nil {
			return err
		}
	}
	return nil
}

func (s *sight) visit(full, rel string, item fs.DirEntry) error {
	info, err := os.Stat(full)
	switch {
	case err != nil && isManifest(rel) && item.Type()&fs.ModeSymlink != 0:
		s.entries = append(s.entries, entry{rel: rel, path: full, problem: "the link leads nowhere: " + err.Error()})
	case errors.Is(err, fs.ErrNotExist): // just removed, or a dead link to something else
	case err != nil:
		return err
	case info.IsDir():
		return s.walk(full, rel)
	case info.Mode().IsRegular() && isManifest(rel):
		s.entries = append(s.entries, entry{rel: rel, path: full, print: fingerprintOf(info)})
		if real, err := filepath.EvalSymlinks(full); err == nil && filepath.Dir(real) != filepath.Dir(full) {
			s.dirs = append(s.dirs, filepath.Dir(real))
		}
	}
	return nil
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// stem is the path without its extension: the name of an add-on.
func stem(rel string) string { return strings.TrimSuffix(rel, path.Ext(rel)) }

// readManifest returns the content of a file that nobody is writing. ok is false when somebody is.
func readManifest(e entry) (data []byte, checksum string, ok bool, err error) {
	if e.print.size > manifest.MaxSize {
		return nil, "", true, fmt.Errorf("the file has %d MiB: split it into files of less than %d MiB", e.print.size>>20, manifest.MaxSize>>20)
	}
	file, err := os.Open(e.path)
	if err != nil {
		return nil, "", true, err
	}
	defer file.Close()
	if writing, _ := dropin.Writing(file); writing { // without leases the quiet time decides
		return nil, "", false, nil
	}
	data = make([]byte, e.print.size)
	n, err := file.ReadAt(data, 0)
	info, statErr := file.Stat()
	if statErr != nil || int64(n) != e.print.size || fingerprintOf(info) != e.print {
		return nil, "", false, nil // it changed under our hands: the next look decides
	}
	if err != nil && n != len(data) {
		return nil, "", true, err
	}
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:]), true, nil
}

// watcher tells when something happened in any of a changing set of directories. Without inotify it stays silent, and the
// slow rescan does the work.
type watcher struct {
	inotify *fsnotify.Watcher // nil when the kernel has none left
	dirs    map[string]bool
}

func newWatcher() (*watcher, error) {
	inotify, err := fsnotify.NewWatcher()
	return &watcher{inotify: inotify, dirs: map[string]bool{}}, err
}

// follow replaces the set of watched directories.
func (w *watcher) follow(dirs []string) error {
	if w.inotify == nil {
		return nil
	}
	var problem error
	wanted := map[string]bool{}
	for _, dir := range dirs {
		wanted[dir] = true
		// Adding again is free, and finds a directory that was replaced by another of the same name.
		if err := w.inotify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problem = fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	for dir := range w.dirs {
		if !wanted[dir] {
			_ = w.inotify.Remove(dir) // fails when the directory is gone, and its watch with it
		}
	}
	w.dirs = wanted
	return problem
}

func (w *watcher) events() <-chan fsnotify.Event {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Events
}

func (w *watcher) errors() <-chan error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Errors
}

func (w *watcher) close() {
	if w.inotify != nil {
		_ = w.inotify.Close()
	}
}
