// Package store keeps the twins of a node on its disk: models, devices, their state, and reports that wait for the API. Every commit is
// one transaction that survives a power cut; what is damaged all the same is set aside. The file is made when something is first kept.
// Rooms of twin import it.
package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"sync"

	bolt "go.etcd.io/bbolt"

	"github.com/kedge-io/kedge/pkg/boltfile"
)

// Buckets of the file.
const (
	Models  = "models"
	Devices = "devices"
	Twins   = "twins"
	Mappers = "mappers"
	meta    = "meta"
	backlog = "backlog"
)

// sequenceBlock is how many sequence numbers are taken at once, so that taking one rarely writes.
const sequenceBlock = 1 << 16

// Store is one file. It is safe for concurrent use.
type Store struct {
	mu     sync.Mutex
	file   *boltfile.File
	id     string
	next   uint64 // sequence number that is given out next
	limit  uint64 // numbers below it are taken on disk
	queued int64  // bytes in the backlog
}

// Open reads the file at path if there is one. A file that cannot be read is kept beside it under another name, and said so in the log.
func Open(path string, log *slog.Logger) (*Store, error) {
	s := &Store{}
	var err error
	s.file, err = boltfile.Open(boltfile.Config{Path: path, Holds: "device store", Prepare: s.prepare, Log: log})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// prepare makes what is missing and reads every page that matters.
func (s *Store) prepare(tx *bolt.Tx) error {
	s.queued = 0
	for _, name := range []string{Models, Devices, Twins, Mappers, meta, backlog} {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return err
		}
		err = b.ForEach(func(_, v []byte) error {
			if name == backlog {
				s.queued += int64(len(v))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	m := tx.Bucket([]byte(meta))
	var err error
	if s.id, err = boltfile.Name(m); err != nil {
		return err
	}
	s.next = boltfile.Number(m.Get([]byte("sequence")))
	if last, _ := tx.Bucket([]byte(backlog)).Cursor().Last(); last != nil {
		s.next = max(s.next, boltfile.Number(last))
	}
	s.next++
	s.limit = s.next + sequenceBlock
	return m.Put([]byte("sequence"), boltfile.Key(s.limit))
}

// Change is one key to be written; a nil Value deletes it.
type Change struct {
	Bucket, Key string
	Value       []byte
}

// Write makes all changes in one transaction that is on disk when it returns. Values that are there already are not written.
func (s *Store) Write(changes ...Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(changes) == 0 {
		return nil
	}
	if err := s.file.Make(); err != nil {
		return err
	}
	changes, err := s.news(changes)
	if err != nil || len(changes) == 0 {
		return err
	}
	err = s.file.Update(func(tx *bolt.Tx) error {
		for _, c := range changes {
			b := tx.Bucket([]byte(c.Bucket))
			if c.Value == nil {
				if err := b.Delete([]byte(c.Key)); err != nil {
					return err
				}
				continue
			}
			if err := b.Put([]byte(c.Key), c.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write device store: %w", err)
	}
	return nil
}

// news leaves out what is on disk already.
func (s *Store) news(changes []Change) ([]Change, error) {
	var out []Change
	err := s.file.View(func(tx *bolt.Tx) error {
		for _, c := range changes {
			if old := tx.Bucket([]byte(c.Bucket)).Get([]byte(c.Key)); !bytes.Equal(old, c.Value) || (old == nil) != (c.Value == nil) {
				out = append(out, c)
			}
		}
		return nil
	})
	return out, err
}

// Each calls do for each key of a bucket, in order. What it gets is its own.
func (s *Store) Each(bucket string, do func(key string, value []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.file.There() {
		return nil
	}
	return s.file.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error { return do(string(k), bytes.Clone(v)) })
	})
}

// Close ends the use of the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}
