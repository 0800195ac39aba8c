// Package snapshot keeps copies of the datastore's database, with the files a complete restore needs
// beside it, and puts them back. pkg/datastore and the snapshot commands may import it.
package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// ErrNotFound says that there is no snapshot of a name.
var ErrNotFound = errors.New("snapshot not found")

// Info describes one snapshot, which is a directory named after it.
type Info struct {
	Name     string    `json:"name"`
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"` // of the datastore
	Size     int64     `json:"size"`     // of the database, in bytes
	SHA256   string    `json:"sha256"`   // of the database
	// Files are the absolute paths of the files and directories kept with the database.
	Files []string `json:"files,omitempty"`
	// Engine made the database; empty is SQLite.
	Engine string `json:"engine,omitempty"`
	// Scheduled snapshots are deleted when there are newer ones enough; others are kept for ever.
	Scheduled bool `json:"scheduled,omitempty"`
}

const (
	databaseFile = "state.db"
	infoFile     = "snapshot.json"
	filesDir     = "files"
	scratch      = ".tmp-" // names of directories that are not finished
)

// Config says what a snapshot is made of and where it goes.
type Config struct {
	Database string   // path of the database
	Engine   Engine   // copies the database; nil is SQLite's
	Dir      string   // where snapshots are kept, created with mode 0700
	Files    []string // absolute paths kept with each snapshot: certificates, token; missing ones are left out
}

// Engine makes copies of a database that is in use.
type Engine interface {
	// Name is kept with the snapshot.
	Name() string
	// Copy writes the database as it is now to a new file.
	Copy(ctx context.Context, to string) error
	// Verify checks a copy and returns its revision.
	Verify(path string) (revision int64, err error)
}

// lite is the Engine of a SQLite file, which may be in use by another process.
type lite struct{ database string }

func (lite) Name() string { return "" }

func (l lite) Copy(_ context.Context, to string) error { return sqlite.Copy(l.database, to) }

func (lite) Verify(path string) (int64, error) { return mvcc.Verify(path) }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("snapshot name %q: use letters, digits, '.', '_' and '-', at most 101 of them, the first no sign", name)
	}
	return nil
}

// Save copies the database as it is now, which may be in use, verifies the copy and keeps it. An empty
// name becomes the time.
func Save(ctx context.Context, cfg Config, name string, scheduled bool) (Info, error) {
	now := time.Now().UTC()
	if name == "" {
		name = "snapshot-" + now.Format("20060102T150405.000Z")
	}
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	final := filepath.Join(cfg.Dir, name)
	if _, err := os.Lstat(final); err == nil {
		return Info{}, fmt.Errorf("snapshot %s exists: choose another name or delete it first", name)
	}
	if cfg.Engine == nil {
		if _, err := os.Stat(cfg.Database); err != nil {
			return Info{}, fmt.Errorf("find database: %w", err)
		}
		cfg.Engine = lite{cfg.Database}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return Info{}, fmt.Errorf("create snapshot directory: %w", err)
	}
	removeScratch(cfg.Dir, now.Add(-time.Hour))
	tmp, err := os.MkdirTemp(cfg.Dir, scratch)
	if err != nil {
		return Info{}, fmt.Errorf("create snapshot directory: %w", err)
	}
	defer os.RemoveAll(tmp) // gone already when all went well
	info := Info{Name: name, Time: now, Engine: cfg.Engine.Name(), Scheduled: scheduled}
	if err := fill(ctx, cfg, tmp, &info); err != nil {
		return Info{}, err
	}
	if err := os.Rename(tmp, final); err != nil {
		return Info{}, fmt.Errorf("keep snapshot: %w", err)
	}
	return info, syncDir(cfg.Dir)
}

// removeScratch removes what crashed attempts left before a time; what cannot be removed does no harm.
func removeScratch(dir string, before time.Time) {
	left, err := filepath.Glob(filepath.Join(dir, scratch+"*"))
	if err != nil {
		return
	}
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && info.ModTime().Before(before) {
			_ = os.RemoveAll(path)
		}
	}
}

// fill makes the snapshot's content in dir and everything but the directory's name durable.
func fill(ctx context.Context, cfg Config, dir string, info *Info) error {
	database := filepath.Join(dir, databaseFile)
	if err := cfg.Engine.Copy(ctx, database); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	rev, err := cfg.Engine.Verify(database)
	if err != nil {
		return fmt.Errorf("verify copy: %w", err)
	}
	info.Revision = rev
	if info.Size, info.SHA256, err = seal(database); err != nil {
		return fmt.Errorf("seal copy: %w", err)
	}
	for _, path := range cfg.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && !found.IsDir() && !found.Mode().IsRegular() {
			continue
		}
		if err == nil {
			err = copyTree(path, filepath.Join(dir, filesDir, path))
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", path, err)
		}
		info.Files = append(info.Files, path)
	}
	raw, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, infoFile), raw); err != nil {
		return fmt.Errorf("describe snapshot: %w", err)
	}
	return syncDir(dir)
}

// List returns the snapshots in dir, oldest first. Directories that are no snapshots are left out.
func List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var infos []Info
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), scratch) {
			continue
		}
		if info, err := Get(dir, e.Name()); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b Info) int { return a.Time.Compare(b.Time) })
	return infos, nil
}

// Databases returns the paths of the SQLite databases of all snapshots in dir, the newest first.
func Databases(dir string) ([]string, error) {
	infos, err := List(dir)
	if err != nil {
		return nil, err
	}
	paths := make([]string, 0, len(infos))
	for _, info := range slices.Backward(infos) {
		if info.Engine != "" {
			continue
		}
		paths = append(paths, filepath.Join(dir, info.Name, databaseFile))
	}
	return paths, nil
}

// Get returns the description of one snapshot, without verifying its content.
func Get(dir, name string) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, name, infoFile))
	if errors.Is(err, os.ErrNotExist) {
		return Info{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return Info{}, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	var info Info
	if err := json.Unmarshal(raw, &info); err != nil {
		return Info{}, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	info.Name = name
	return info, nil
}

// Delete removes a snapshot.
func Delete(dir, name string) error {
	if _, err := Get(dir, name); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("delete snapshot %s: %w", name, err)
	}
	return nil
}

// Expired returns the scheduled snapshots that are too many when keep of them are to stay, oldest first.
func Expired(infos []Info, keep int) []Info {
	scheduled := slices.DeleteFunc(slices.Clone(infos), func(i Info) bool { return !i.Scheduled })
	if len(scheduled) <= keep {
		return nil
	}
	return scheduled[:len(scheduled)-keep]
}
