package resume

import (
	"container/list"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// maxFile bounds what is read of a file with sessions, in bytes.
const maxFile = 32 << 20

// record is a session in a file.
type record struct {
	ID     [idSize]byte
	Owner  [sha256.Size]byte
	State  []byte
	Proven time.Time
}

// Save writes the sessions to a file for the server's next start, so that all nodes that return to it then do so cheaply. It belongs to where only
// root reads and nothing outlives the machine's power: sessions are secrets.
func (s *Store) Save(path string) error {
	s.mu.Lock()
	all := make([]record, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		k := e.Value.(*kept)
		all = append(all, record{k.id, k.owner, k.state, k.proven})
	}
	s.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("keep sessions: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tls-") // for its owner alone
	if err != nil {
		return fmt.Errorf("keep sessions: %w", err)
	}
	defer os.Remove(f.Name())
	if err := errors.Join(gob.NewEncoder(f).Encode(all), f.Close()); err != nil {
		return fmt.Errorf("keep sessions: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("keep sessions: %w", err)
	}
	return nil
}

// Load takes over what Save has written, and removes the file. None is no error.
func (s *Store) Load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	var all []record
	if err := gob.NewDecoder(io.LimitReader(f, maxFile)).Decode(&all); err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all[max(0, len(all)-maxSessions):] {
		if age := s.now().Sub(r.Proven); age >= 0 && age < Life {
			s.add(&kept{id: r.ID, owner: r.Owner, state: r.State, proven: r.Proven})
		}
	}
	return nil
}

// add stores a session. The lock is held.
func (s *Store) add(k *kept) {
	if s.byID == nil {
		s.byID, s.owners = map[[idSize]byte]*list.Element{}, map[[sha256.Size]byte][]*list.Element{}
	}
	e := s.order.PushBack(k)
	s.byID[k.id] = e
	s.owners[k.owner] = append(s.owners[k.owner], e)
	if own := s.owners[k.owner]; len(own) > perOwner {
		s.drop(own[0])
	}
	if s.order.Len() > maxSessions {
		s.drop(s.order.Front())
	}
}
