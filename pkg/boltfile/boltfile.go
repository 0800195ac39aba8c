// Package boltfile keeps a database in one file that is made when something is first kept, survives power cuts, and is set aside when it is
// damaged all the same. It is a foundation: features that keep something on a node's disk import it.
package boltfile

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// lockTimeout bounds the wait for another process that has the file.
const lockTimeout = 5 * time.Second

// Config says what is kept where.
type Config struct {
	Path string
	// Holds is what the file holds, as "device twins", for logs and errors.
	Holds string
	// Prepare makes the buckets that are missing and reads every page that matters. It is called whenever the file is opened.
	Prepare func(*bolt.Tx) error
	Log     *slog.Logger
}

// File is one database. Its owner keeps concurrent calls apart.
type File struct {
	cfg Config
	db  *bolt.DB
}

// Open reads the file if there is one. A file that cannot be read is kept beside it under another name, which the log says. It fails when
// another process has the file.
func Open(cfg Config) (*File, error) {
	f := &File{cfg: cfg}
	_, err := os.Stat(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Holds, err)
	}
	if err = f.Make(); err == nil || errors.Is(err, bolt.ErrTimeout) {
		return f, err
	}
	damaged := fmt.Sprintf("%s.damaged-%d", cfg.Path, time.Now().Unix())
	cfg.Log.Warn("a file was damaged: starting without what it held", "held", cfg.Holds, "kept", damaged, "error", err)
	if err := os.Rename(cfg.Path, damaged); err != nil {
		return nil, fmt.Errorf("set damaged %s aside: %w", cfg.Holds, err)
	}
	return f, nil
}

// Make makes the file, or opens it, unless it is open.
func (f *File) Make() (err error) {
	if f.db != nil {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file is mapped: what is missing of a file that was cut short faults
	defer func() {                                           // a page that makes no sense, or is not there
		if r := recover(); r != nil {
			err = fmt.Errorf("open %s: %v", f.cfg.Holds, r)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(f.cfg.Path), 0o700); err != nil {
		return fmt.Errorf("open %s: %w", f.cfg.Holds, err)
	}
	db, err := bolt.Open(f.cfg.Path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open %s: %w", f.cfg.Holds, err)
	}
	if err := db.Update(f.cfg.Prepare); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", f.cfg.Holds, err), db.Close())
	}
	f.db = db
	return nil
}

// There says whether the file is open: Update and View need that.
func (f *File) There() bool { return f.db != nil }

// Update changes the file in one transaction, which is on the disk when it returns nil.
func (f *File) Update(do func(*bolt.Tx) error) error { return f.db.Update(do) }

// View reads the file in one transaction.
func (f *File) View(do func(*bolt.Tx) error) error { return f.db.View(do) }

// Close ends the use of the file; Make opens it again.
func (f *File) Close() error {
	if f.db == nil {
		return nil
	}
	db := f.db
	f.db = nil
	if err := db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", f.cfg.Holds, err)
	}
	return nil
}

// Name returns the name of the file that the bucket holds, and makes one up when it holds none.
func Name(b *bolt.Bucket) (string, error) {
	if name := b.Get([]byte("id")); len(name) > 0 {
		return string(name), nil
	}
	random := make([]byte, 6)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	name := hex.EncodeToString(random)
	return name, b.Put([]byte("id"), []byte(name))
}

// Key is a number as a key: in the order of the numbers.
func Key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Number is what Key was made of, or 0.
func Number(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
