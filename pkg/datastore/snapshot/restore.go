package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
)

// skipRevisions is how far a restore moves the revision forward: farther than any datastore gets between
// two snapshots, so that no client has seen the revisions that are handed out next.
const skipRevisions = 10_000_000

// Restore puts the database of a snapshot in the place of cfg.Database, which nobody may have open. What
// was there is moved to the directory aside, which must not exist. With files, the files kept with the
// snapshot are put back to their places too. A snapshot that does not verify changes nothing.
func Restore(cfg Config, name, aside string, files bool) (Info, error) {
	info, err := Get(cfg.Dir, name)
	if err != nil {
		return Info{}, err
	}
	if info.Engine != "" {
		return Info{}, fmt.Errorf("snapshot %s is one of %s, and this server keeps its data in SQLite: restore it on a server with --cluster-init", name, info.Engine)
	}
	fresh := cfg.Database + ".restore"
	if err := prepare(cfg.Dir, fresh, info); err != nil {
		return Info{}, errors.Join(fmt.Errorf("snapshot %s: %w", name, err), removeDatabase(fresh))
	}
	if err := MoveAside(cfg.Database, aside); err != nil {
		return Info{}, err
	}
	if err := os.Rename(fresh, cfg.Database); err != nil {
		return Info{}, fmt.Errorf("put database in place: %w", err)
	}
	if err := syncDir(filepath.Dir(cfg.Database)); err != nil {
		return Info{}, fmt.Errorf("put database in place: %w", err)
	}
	if !files {
		return info, nil
	}
	return info, PutBack(cfg.Dir, info)
}

// linkToken is a link to another file, and was never kept with a snapshot.
const linkToken = "node-token"

// PutBack puts the files kept with a snapshot back to their places.
func PutBack(dir string, info Info) error {
	for _, path := range info.Files {
		kept := filepath.Join(dir, info.Name, filesDir, path)
		if _, err := os.Lstat(kept); errors.Is(err, os.ErrNotExist) && filepath.Base(path) == linkToken {
			continue // snapshots of earlier versions name it
		}
		if err := copyTree(kept, path); err != nil {
			return fmt.Errorf("put back %s: %w", path, err)
		}
	}
	return nil
}

// CopyOut writes the database of a snapshot to a file, and fails when it is not what was kept.
func CopyOut(dir string, info Info, to string) error {
	if err := copyFile(filepath.Join(dir, info.Name, databaseFile), to, 0o600); err != nil {
		return err
	}
	_, sum, err := seal(to)
	if err == nil && sum != info.SHA256 {
		err = fmt.Errorf("its database has changed since it was made: sha256 %s, was %s", sum, info.SHA256)
	}
	return err
}

// prepare makes a copy of the snapshot's database that is ready to be used.
func prepare(dir, fresh string, info Info) error {
	if err := removeDatabase(fresh); err != nil {
		return err
	}
	if err := CopyOut(dir, info, fresh); err != nil {
		return err
	}
	if _, err := mvcc.Verify(fresh); err != nil {
		return err
	}
	if err := mvcc.SkipRevisions(fresh, skipRevisions); err != nil {
		return fmt.Errorf("move revision forward: %w", err)
	}
	_, _, err := seal(fresh)
	return err
}

// MoveAside moves a database that nobody has open, and what belongs to it, into the new directory aside.
func MoveAside(database, aside string) error {
	if err := os.Mkdir(aside, 0o700); err != nil {
		return fmt.Errorf("keep old database: %w", err)
	}
	for _, suffix := range suffixes() {
		err := os.Rename(database+suffix, filepath.Join(aside, filepath.Base(database)+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keep old database: %w", err)
		}
	}
	return syncDir(filepath.Dir(database))
}

// suffixes are those of the files of one database. The database itself goes first: without it the next
// start notices that something is missing, while one without its log would look whole.
func suffixes() []string { return []string{"", "-wal", "-shm", "-journal"} }

func removeDatabase(path string) error {
	for _, suffix := range suffixes() {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// seal makes a file durable and returns its size and checksum.
func seal(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(h.Sum(nil)), f.Sync()
}

func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// copyTree copies a file or a directory with everything in it, modes included; links and special files
// are left out. Files that exist are replaced.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, info.Mode().Perm()|0o700)
		case !d.Type().IsRegular():
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return copyFile(path, target, info.Mode().Perm())
	})
}

// copyFile writes beside the target first and renames, so that it is whole at any time.
func copyFile(from, to string, mode os.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), scratch)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = io.Copy(tmp, src)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
