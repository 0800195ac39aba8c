package store

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/kedge-io/kedge/pkg/boltfile"
)

// Report is one report that waits for the API.
type Report struct {
	Sequence uint64
	Data     []byte
}

// Sequence gives out a number that is greater than all before it, those before a restart too, and the name of the store that counts.
func (s *Store) Sequence() (id string, n uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.file.Make(); err != nil {
		return "", 0, err
	}
	if s.next >= s.limit {
		limit := s.next + sequenceBlock
		err := s.file.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(meta)).Put([]byte("sequence"), boltfile.Key(limit)) })
		if err != nil {
			return "", 0, fmt.Errorf("take sequence numbers: %w", err)
		}
		s.limit = limit
	}
	n = s.next
	s.next++
	return s.id, n, nil
}

// Append adds reports to the backlog in one transaction. When it has more than most bytes then, the oldest go; their number is returned.
func (s *Store) Append(reports []Report, most int64) (dropped int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(reports) == 0 {
		return 0, nil
	}
	if err := s.file.Make(); err != nil {
		return 0, err
	}
	queued := s.queued
	err = s.file.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(backlog))
		for _, r := range reports {
			if err := b.Put(boltfile.Key(r.Sequence), r.Data); err != nil {
				return err
			}
			queued += int64(len(r.Data))
		}
		for queued > most {
			k, v := b.Cursor().First()
			if k == nil {
				break
			}
			queued -= int64(len(v))
			if err := b.Delete(k); err != nil {
				return err
			}
			dropped++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("write reports: %w", err)
	}
	s.queued = queued
	return dropped, nil
}

// Oldest returns the reports that have waited longest, at most count.
func (s *Store) Oldest(count int) (reports []Report, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.file.There() {
		return nil, nil
	}
	err = s.file.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(backlog)).Cursor()
		for k, v := c.First(); k != nil && len(reports) < count; k, v = c.Next() {
			reports = append(reports, Report{boltfile.Number(k), bytes.Clone(v)})
		}
		return nil
	})
	return reports, err
}

// Newest calls do for reports from the last one backwards, until there are no more or do says no.
func (s *Store) Newest(do func(Report) (more bool)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.file.There() {
		return nil
	}
	return s.file.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(backlog)).Cursor()
		for k, v := c.Last(); k != nil && do(Report{boltfile.Number(k), bytes.Clone(v)}); k, v = c.Prev() {
			continue
		}
		return nil
	})
}

// Remove deletes reports that have arrived, in one transaction.
func (s *Store) Remove(sequences []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.file.There() || len(sequences) == 0 {
		return nil
	}
	queued := s.queued
	err := s.file.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(backlog))
		for _, n := range sequences {
			queued -= int64(len(b.Get(boltfile.Key(n))))
			if err := b.Delete(boltfile.Key(n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove reports: %w", err)
	}
	s.queued = queued
	return nil
}

// Waiting is the size of the backlog in bytes.
func (s *Store) Waiting() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}
