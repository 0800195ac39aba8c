// Package sqlite keeps the revisions of an etcd-like key space in one SQLite file: an append-only
// table, an index of the keys in memory, one writer that commits waiting writes together. Only
// packages below pkg/datastore may import it.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
)

// Config says where the database is and how it behaves.
type Config struct {
	Path string // the database file; -wal and -shm appear beside it
	// Synchronous is SQLite's setting: "FULL" makes every acknowledged write survive a power cut,
	// "NORMAL" only a crash of the process. Empty means FULL.
	Synchronous string
	// WALLimit is the size in bytes above which the write-ahead log is cut back. 0 means 16 MiB.
	WALLimit int64
	// Publish receives the events of every commit in order, from one goroutine. It must not block.
	Publish func(events []*mvccpb.Event, revision int64)
	Log     *slog.Logger
}

// Store is an open database. Its methods may be called from many goroutines.
type Store struct {
	cfg     Config
	index   *keyindex.Index
	writer  *writer
	readers chan *conn
	expiry  *expiry
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan struct{}
	cause   atomic.Pointer[error]
}

const maxReaders = 3

// Open opens or creates the database and reads the keys. The file must not be open anywhere else.
func Open(cfg Config) (*Store, error) {
	if cfg.Synchronous == "" {
		cfg.Synchronous = "FULL"
	}
	if cfg.Synchronous != "FULL" && cfg.Synchronous != "NORMAL" {
		return nil, fmt.Errorf("synchronous %q: must be FULL or NORMAL", cfg.Synchronous)
	}
	if cfg.WALLimit == 0 {
		cfg.WALLimit = 16 << 20
	}
	exists, err := checkHeader(cfg.Path)
	if err != nil {
		return nil, err
	}
	unclean := exists && fileSize(cfg.Path+"-wal") > 0
	c, err := openConn(cfg.Path,
		"busy_timeout = 10000",
		"page_size = 4096",
		"auto_vacuum = INCREMENTAL",
		"journal_mode = WAL",
		"synchronous = "+cfg.Synchronous,
		"temp_store = MEMORY",
		"cache_size = -2048",
		fmt.Sprintf("journal_size_limit = %d", cfg.WALLimit),
	)
	if err != nil {
		return nil, err
	}
	s, err := load(cfg, c, unclean)
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return s, nil
}

func load(cfg Config, c *conn, unclean bool) (*Store, error) {
	if unclean {
		if err := quickCheck(c); err != nil {
			return nil, err
		}
	}
	if err := prepareSchema(c); err != nil {
		return nil, fmt.Errorf("prepare schema: %w", err)
	}
	s := &Store{
		cfg: cfg, index: keyindex.New(), readers: make(chan *conn, maxReaders), failed: make(chan struct{}),
	}
	garbage, err := s.loadIndex(c)
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	for range maxReaders {
		s.readers <- nil // opened when first needed
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.writer = newWriter(s, c, garbage)
	s.running.Add(2)
	go func() { defer s.running.Done(); s.writer.run(ctx) }()
	go func() { defer s.running.Done(); s.expiry.run(ctx, s) }()
	return s, nil
}

// quickCheck lets SQLite verify the structure of the whole file.
func quickCheck(c *conn) error {
	var verdict string
	err := c.each("PRAGMA quick_check(1)", func(row []driver.Value) error {
		verdict = asString(row[0])
		return nil
	})
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("check database: %w: %s", errDamaged, verdict)
	}
	return nil
}

// loadIndex reads every row but its value. Rows that a compaction had not deleted yet are returned.
func (s *Store) loadIndex(c *conn) (garbage []int64, err error) {
	compacted, err := c.integer("SELECT MAX(prev_revision) FROM kine WHERE name = ?", compactKey)
	if err != nil {
		return nil, err
	}
	heads := map[string]keyindex.Rev{}
	var entries []keyindex.Entry
	var last int64
	err = c.each("SELECT id, name, created, deleted, create_revision, lease, version FROM kine ORDER BY id",
		func(row []driver.Value) error {
			last = asInt(row[0])
			key := asString(row[1])
			if key == compactKey {
				return nil
			}
			key = apiName(key)
			r := keyindex.Rev{Mod: last, Create: asInt(row[4]), Lease: asInt(row[5]), Version: asInt(row[6])}
			head := heads[key]
			switch {
			case asInt(row[3]) != 0:
				r = keyindex.Rev{Mod: last}
			case asInt(row[2]) != 0: // kine writes 0 as the revision that created the key
				r.Create, r.Version = last, 1
			case r.Version == 0: // written by kine, which does not count versions
				r.Version = max(head.Version, 1) + 1
			}
			heads[key] = r
			entries = append(entries, keyindex.Entry{Key: key, Rev: r})
			return nil
		})
	if err != nil {
		return nil, err
	}
	s.index.Apply(entries, max(last, 1))
	s.expiry = newExpiry()
	for key, head := range heads {
		s.expiry.add(key, head)
	}
	if compacted > 0 {
		garbage = s.index.Compact(compacted)
	}
	return garbage, nil
}

// Close finishes the waiting writes, empties the write-ahead log and closes the file.
func (s *Store) Close() error {
	s.writer.stop()
	s.cancel()
	s.running.Wait()
	var errs []error
	for range maxReaders {
		if c := <-s.readers; c != nil {
			errs = append(errs, c.close())
		}
	}
	errs = append(errs, s.writer.close())
	return errors.Join(errs...)
}

// Failed is closed when the disk lost data it had promised to keep; Err says why. The store answers
// no more writes then and must be opened again.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err returns the reason of Failed, or nil.
func (s *Store) Err() error {
	if p := s.cause.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *Store) fail(err error) {
	if s.cause.CompareAndSwap(nil, &err) {
		close(s.failed)
	}
}

// Revisions returns the current and the compacted revision.
func (s *Store) Revisions() (current, compacted int64) { return s.index.Revisions() }

// Size returns the bytes the database file and its write-ahead log take.
func (s *Store) Size() (database, wal int64) {
	return fileSize(s.cfg.Path), fileSize(s.cfg.Path + "-wal")
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
