// Package queue keeps the messages of a node that wait for a server: on disk, in order, one line for each rule, and not more than fits. What
// is damaged is set aside. The file is made with the first message. Rooms of rules import it.
package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	bolt "go.etcd.io/bbolt"

	"github.com/kedge-io/kedge/pkg/boltfile"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

// Buckets of the file: one bucket for each rule in lines, how many messages of a rule were dropped, and the name of the file.
const (
	lines = "lines"
	lost  = "lost"
	meta  = "meta"
)

// Config says where messages wait, and how many.
type Config struct {
	Path string
	// Most is the number of bytes that may wait; the oldest go first.
	Most int64
	Log  *slog.Logger
}

// Queue is one file. It is safe for concurrent use.
type Queue struct {
	most int64

	mu     sync.Mutex
	file   *boltfile.File
	id     string
	bytes  int64
	counts map[string]int // by rule
}

// Open reads the file if there is one.
func Open(cfg Config) (*Queue, error) {
	q := &Queue{counts: map[string]int{}, most: cfg.Most}
	var err error
	q.file, err = boltfile.Open(boltfile.Config{Path: cfg.Path, Holds: "messages of this node that wait", Prepare: q.prepare, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// prepare makes what is missing and counts what is there.
func (q *Queue) prepare(tx *bolt.Tx) error {
	for _, name := range []string{lines, lost, meta} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	var err error
	if q.id, err = boltfile.Name(tx.Bucket([]byte(meta))); err != nil {
		return err
	}
	q.bytes, q.counts = 0, map[string]int{}
	all := tx.Bucket([]byte(lines))
	return all.ForEachBucket(func(rule []byte) error {
		return all.Bucket(rule).ForEach(func(_, v []byte) error {
			q.bytes += int64(len(v))
			q.counts[string(rule)]++
			return nil
		})
	})
}

// Close closes the file; a later Append opens it again.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.file.Close()
}

// Append puts the same message at the end of the lines of several rules, and gives it its id. When it returns, the message survives a power
// cut. dropped is how many of the oldest messages went for it.
func (q *Queue) Append(rules []string, m wire.Message) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.file.Make(); err != nil {
		return 0, err
	}
	size, gone := q.bytes, map[string]int{}
	err = q.file.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket([]byte(lines))
		for _, rule := range rules {
			line, err := all.CreateBucketIfNotExists([]byte(rule))
			if err != nil {
				return err
			}
			n, err := all.NextSequence()
			if err != nil {
				return err
			}
			if m.ID == "" {
				m.ID = fmt.Sprintf("%s-%d", q.id, n)
			}
			data, err := json.Marshal(m)
			if err != nil {
				return err
			}
			if err := line.Put(boltfile.Key(n), data); err != nil {
				return err
			}
			size += int64(len(data))
		}
		size, err = shrink(tx, size, q.most, gone)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("keep message: %w", err)
	}
	q.bytes = size
	for _, rule := range rules {
		q.counts[rule]++
	}
	for rule, n := range gone {
		q.counts[rule] -= n
		dropped += n
	}
	return dropped, nil
}

// shrink drops the oldest messages until size is at most most, and counts them in gone and on disk.
func shrink(tx *bolt.Tx, size, most int64, gone map[string]int) (int64, error) {
	all := tx.Bucket([]byte(lines))
	for size > most {
		var oldest, name []byte
		err := all.ForEachBucket(func(rule []byte) error {
			if k, _ := all.Bucket(rule).Cursor().First(); k != nil && (oldest == nil || bytes.Compare(k, oldest) < 0) {
				oldest, name = bytes.Clone(k), bytes.Clone(rule)
			}
			return nil
		})
		if err != nil || oldest == nil {
			return size, err
		}
		line := all.Bucket(name)
		size -= int64(len(line.Get(oldest)))
		if err := line.Delete(oldest); err != nil {
			return size, err
		}
		gone[string(name)]++
	}
	b := tx.Bucket([]byte(lost))
	for rule, n := range gone {
		if err := b.Put([]byte(rule), boltfile.Key(boltfile.Number(b.Get([]byte(rule)))+uint64(n))); err != nil {
			return size, err
		}
	}
	return size, nil
}

// Entry is a message that waits.
type Entry struct {
	number  uint64
	Message wire.Message
}

// Oldest returns the messages of a rule that wait longest, as many as may travel together, and how many were dropped since Remove last said
// so.
func (q *Queue) Oldest(rule string) (entries []Entry, dropped int64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.file.There() {
		return nil, 0, nil
	}
	err = q.file.View(func(tx *bolt.Tx) error {
		dropped = int64(boltfile.Number(tx.Bucket([]byte(lost)).Get([]byte(rule))))
		line := tx.Bucket([]byte(lines)).Bucket([]byte(rule))
		if line == nil {
			return nil
		}
		c, size := line.Cursor(), 0
		for k, v := c.First(); k != nil && len(entries) < wire.MaxMessages; k, v = c.Next() {
			e := Entry{number: boltfile.Number(k)}
			if err := json.Unmarshal(v, &e.Message); err != nil {
				return err
			}
			if size += len(e.Message.Body); len(entries) > 0 && size > wire.MaxBatch {
				break
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, dropped, err
}

// Remove takes messages out that need not be sent again; said is how many dropped ones were reported.
func (q *Queue) Remove(rule string, entries []Entry, said int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.file.There() || len(entries) == 0 && said == 0 {
		return nil
	}
	size, count := q.bytes, q.counts[rule]
	err := q.file.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(lost))
		if said > 0 {
			if err := b.Put([]byte(rule), boltfile.Key(boltfile.Number(b.Get([]byte(rule)))-uint64(said))); err != nil {
				return err
			}
		}
		line := tx.Bucket([]byte(lines)).Bucket([]byte(rule))
		for _, e := range entries {
			v := []byte(nil)
			if line != nil {
				v = line.Get(boltfile.Key(e.number))
			}
			if v == nil { // it was dropped meanwhile
				continue
			}
			size, count = size-int64(len(v)), count-1
			if err := line.Delete(boltfile.Key(e.number)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove messages: %w", err)
	}
	q.bytes, q.counts[rule] = size, count
	return nil
}

// Forget drops the line of a rule, and returns how many messages it had.
func (q *Queue) Forget(rule string) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.file.There() {
		return 0, nil
	}
	size := q.bytes
	err = q.file.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket([]byte(lines))
		line := all.Bucket([]byte(rule))
		if line == nil {
			return nil
		}
		if err := line.ForEach(func(_, v []byte) error {
			size -= int64(len(v))
			dropped++
			return nil
		}); err != nil {
			return err
		}
		return errors.Join(all.DeleteBucket([]byte(rule)), tx.Bucket([]byte(lost)).Delete([]byte(rule)))
	})
	if err != nil {
		return 0, fmt.Errorf("forget messages: %w", err)
	}
	q.bytes = size
	delete(q.counts, rule)
	return dropped, nil
}

// Waiting is the number of messages of a rule.
func (q *Queue) Waiting(rule string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts[rule]
}

// Rules are those that have messages.
func (q *Queue) Rules() (rules []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for rule, n := range q.counts {
		if n > 0 {
			rules = append(rules, rule)
		}
	}
	return rules
}
