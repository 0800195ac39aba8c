// Package store keeps entries on disk: an append-only file of sealed records, rewritten from memory when half of it is old. What was written is
// found again after a crash or a power cut in the middle of a write; what was not is missing from the end, never from the middle. Every record is
// encrypted and authenticated with a key of this node, so that the store of another node, or a damaged record, is known for what it is.
// It is an inner room of pkg/autonomy; only packages of it import it.
package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Entry is one value under a key in a bucket. A nil Value says that the key is gone; with an empty Key, the whole bucket.
type Entry struct {
	Bucket, Key string
	// Version is kept with the entry, also with one that is gone.
	Version uint64
	Value   []byte
}

// Limits of the store.
const (
	// maxRecord bounds one record, maxPending what waits to be written.
	maxRecord  = 8 << 20
	maxPending = 16 << 20
	// spare is how many bytes may be old before the file is rewritten.
	spare = 1 << 20
)

// Config is what a store needs to know.
type Config struct {
	// Path is the file.
	Path string
	// Key is 32 bytes that only this node has.
	Key []byte
	// Restore is called by Open for every entry that is found, in the order of writing.
	Restore func(Entry)
	// Snapshot yields all entries as they are now. It may be called at any time after Open, by Sync.
	Snapshot func(yield func(Entry) bool)
	Log      *slog.Logger
}

// Store is safe for concurrent use.
type Store struct {
	cfg  Config
	aead cipher.AEAD

	mu      sync.Mutex
	pending []byte // sealed records to append
	rewrite bool   // the file no longer continues what memory holds
	lost    string // what was not found when the file was read
	trouble string // why the file cannot be written

	writing sync.Mutex // one Sync at a time; guards what follows
	file    *os.File
	size    int64       // up to the last whole record
	compact int64       // size after the last rewrite
	left    os.FileInfo // the file as it was left
}

// Open reads the file, or begins a new one when there is none, when it belongs to another node, or when nothing in it can be read: what is lost is
// logged. It fails only when the directory cannot be used at all.
func Open(cfg Config) (*Store, error) {
	block, err := aes.NewCipher(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{cfg: cfg}
	if s.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	data, err := os.ReadFile(cfg.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.restore(data, err == nil)
	s.leave()
	return s, nil
}

// restore reads what can be read, and decides whether the file can be continued.
func (s *Store) restore(data []byte, exists bool) {
	body, ok := bytes.CutPrefix(data, []byte(fileHeader))
	found := scan(body, s.aead, s.cfg.Restore)
	switch {
	case !exists:
		s.rewrite, s.lost = true, "there was no store"
	case !ok || found.records == 0 && len(body) > 0:
		s.cfg.Log.Warn("the autonomy store is of another node or damaged, and begins anew", "path", s.cfg.Path, "bytes", len(data))
		s.rewrite, s.lost = true, "the store was of another node or damaged, and began anew"
	case found.lost > 0:
		s.cfg.Log.Warn("part of the autonomy store was damaged and is lost until the server is reached",
			"path", s.cfg.Path, "bytes", found.lost, "entries", found.records)
		s.rewrite, s.lost = true, fmt.Sprintf("%d bytes of the store were damaged", found.lost)
	}
	s.size = int64(len(fileHeader) + found.end)
	s.compact = s.size / 2
}

// Damaged says whether entries between others were lost when the store was opened, or it began anew. It is false after the first Sync.
func (s *Store) Damaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rewrite
}

// Lost says what was not found when the store was opened: that there was none, that it was unusable, or how much of it was. It is empty otherwise.
func (s *Store) Lost() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Trouble says why the store cannot be written at present; it is empty when it can.
func (s *Store) Trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// leave remembers how the file was left. Nobody else is to change it.
func (s *Store) leave() {
	s.left = nil
	if info, err := os.Lstat(s.cfg.Path); err == nil {
		s.left = info
	}
}

// touched says what somebody else did to the file since it was left, if anything.
func (s *Store) touched() string {
	if s.left == nil {
		return ""
	}
	now, err := os.Lstat(s.cfg.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "removed"
	case err != nil:
		return "" // what is wrong shows when it is written
	case !os.SameFile(now, s.left):
		return "replaced"
	case now.Size() != s.left.Size() || !now.ModTime().Equal(s.left.ModTime()):
		return "changed"
	}
	return ""
}

// Put queues an entry; Sync writes it.
func (s *Store) Put(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rewrite {
		return // the snapshot will hold it
	}
	if len(s.pending) > maxPending {
		s.pending, s.rewrite = nil, true
		return
	}
	s.pending = appendRecord(s.pending, s.aead, e)
}

// Sync writes what is queued and returns when it is on the disk. After a failure, of which the first is logged, the store works on in memory, and
// the next Sync tries to write all of it. A file that somebody else removed or changed is written anew from memory.
func (s *Store) Sync() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	pending, rewrite := s.pending, s.rewrite
	s.pending, s.rewrite = nil, false
	s.mu.Unlock()
	if how := s.touched(); how != "" {
		s.left, rewrite = nil, true // said once
		s.cfg.Log.Warn("somebody else touched the autonomy store: it is written anew from memory", "path", s.cfg.Path, "file", how)
	}
	if len(pending) == 0 && !rewrite {
		return nil
	}
	err := s.write(pending, rewrite)
	s.report(err)
	return err
}

// write makes the file hold what memory does.
func (s *Store) write(pending []byte, rewrite bool) (err error) {
	if rewrite || s.size+int64(len(pending)) > 2*s.compact+spare {
		err = s.replace()
	} else {
		err = s.append(pending)
	}
	s.leave()
	return err
}

// report remembers whether the last write worked, and logs when that changes.
func (s *Store) report(err error) {
	s.mu.Lock()
	before := s.trouble
	if s.trouble = ""; err != nil {
		s.trouble, s.pending, s.rewrite = err.Error(), nil, true
	}
	s.mu.Unlock()
	switch {
	case err != nil && before == "":
		s.cfg.Log.Warn("the autonomy store cannot be written: what changes from now on is lost if kedge stops", "path", s.cfg.Path, "error", err)
	case err == nil && before != "":
		s.cfg.Log.Info("the autonomy store can be written again", "path", s.cfg.Path)
	}
}

// append adds records behind the last whole one.
func (s *Store) append(records []byte) error {
	if s.file == nil {
		f, err := os.OpenFile(s.cfg.Path, os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		s.file = f
		if err := f.Truncate(s.size); err != nil { // a torn record
			return fmt.Errorf("write store: %w", err)
		}
	}
	if _, err := s.file.WriteAt(records, s.size); err != nil {
		return errors.Join(fmt.Errorf("write store: %w", err), s.file.Truncate(s.size))
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	s.size += int64(len(records))
	return nil
}

// replace writes everything anew beside the file and takes its place.
func (s *Store) replace() error {
	f, err := os.CreateTemp(filepath.Dir(s.cfg.Path), filepath.Base(s.cfg.Path)+".new-")
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	size, err := s.writeAll(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), s.cfg.Path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write store: %w", err), f.Close(), os.Remove(f.Name()))
	}
	if s.file != nil {
		_ = s.file.Close() // it is gone
	}
	s.file, s.size, s.compact = f, size, size
	return syncDir(filepath.Dir(s.cfg.Path))
}

func (s *Store) writeAll(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, fileHeader)
	size := int64(n)
	if err != nil {
		return size, err
	}
	var buffer []byte
	flush := func() {
		n, err = w.Write(buffer)
		size += int64(n)
		buffer = buffer[:0]
	}
	s.cfg.Snapshot(func(e Entry) bool {
		buffer = appendRecord(buffer, s.aead, e)
		if len(buffer) > 256<<10 {
			flush()
		}
		return err == nil
	})
	if err == nil {
		flush()
	}
	return size, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close writes what is queued and closes the file.
func (s *Store) Close() error {
	err := s.Sync()
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
		s.file = nil
	}
	return err
}
