// Package mvcc keeps the revisions of an etcd-like key space in one SQLite file: an append-only
// table, an index of the keys in memory, one writer that commits waiting writes together. Only
// packages below pkg/datastore may import it.
package mvcc

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kedge-io/kedge/pkg/datastore/expiry"
	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// Config says where the database is and how it behaves.
type Config struct {
	Path string // the database file; -wal and -shm appear beside it
	// Synchronous is SQLite's setting: "FULL" makes every acknowledged write survive a power cut,
	// "NORMAL" only a crash of the process. Empty means FULL.
	Synchronous string
	// WALLimit is the size in bytes above which the write-ahead log is cut back. 0 means 16 MiB.
	WALLimit int64
	// MustExist makes a missing or empty database an error instead of a new one.
	MustExist bool
	// Donors are databases of snapshots, best first, from which rows are taken again that have changed on the
	// disk.
	Donors []string
	// Publish receives the events of every commit in order, from one goroutine. It must not block.
	Publish func(events []*mvccpb.Event, revision int64)
	Log     *slog.Logger
}

// Store is an open database. Its methods may be called from many goroutines.
type Store struct {
	cfg     Config
	index   *keyindex.Index
	writer  *writer
	readers chan *sqlite.Conn
	expiry  *expiry.Queue
	cancel  context.CancelFunc
	running sync.WaitGroup
	repairs []Repair
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
	exists, err := checkVersion(cfg.Path)
	if err != nil {
		return nil, err
	}
	if !exists && cfg.MustExist {
		return nil, fmt.Errorf("%w: %s is missing or empty", sqlite.ErrDamaged, cfg.Path)
	}
	if err := sqlite.Create(cfg.Path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	c, err := sqlite.Open(cfg.Path,
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
	s, err := load(cfg, c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func load(cfg Config, c *sqlite.Conn) (*Store, error) {
	// always, not only after a crash: damage can make rows disappear without any other sign, and all pages
	// are read anyway
	if err := sqlite.Check(c); err != nil {
		return nil, err
	}
	if err := prepareSchema(c, cfg.MustExist); err != nil {
		return nil, fmt.Errorf("prepare schema: %w", err)
	}
	if err := c.Exec(fmt.Sprintf("PRAGMA busy_timeout = %d", writerPatience)); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, index: keyindex.New(), readers: make(chan *sqlite.Conn, maxReaders), failed: make(chan struct{}),
	}
	garbage, err := s.loadIndex(c)
	if sqlite.SchemaFailed(err) {
		err = fmt.Errorf("%w: %w", sqlite.ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	for _, r := range s.repairs {
		cfg.Log.Error("a value had changed on the disk", "key", r.Key, "revision", r.Revision, "takenFrom", r.From, "lost", r.From == "")
	}
	for range maxReaders {
		s.readers <- nil // opened when first needed
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.writer = newWriter(s, c, garbage)
	s.running.Add(2)
	go func() { defer s.running.Done(); s.writer.run(ctx) }()
	go func() { defer s.running.Done(); s.expiry.Run(ctx, s.deleteExpired) }()
	return s, nil
}

// Repairs returns what Open had to repair.
func (s *Store) Repairs() []Repair { return s.repairs }

// loadIndex reads every row, and puts those right that have changed on the disk. Rows that a compaction had
// not deleted yet are returned.
func (s *Store) loadIndex(c *sqlite.Conn) (garbage []int64, err error) {
	heads, entries, bad, err := readRows(c)
	if err == nil && len(bad) > 0 {
		if s.repairs, err = repairRows(c, bad, s.cfg.Donors); err != nil {
			return nil, fmt.Errorf("repair rows: %w", err)
		}
		if heads, entries, bad, err = readRows(c); err == nil && len(bad) > 0 {
			err = fmt.Errorf("%w: %d rows change while they are read", sqlite.ErrDamaged, len(bad))
		}
	}
	if err != nil {
		return nil, err
	}
	compacted, err := c.Integer("SELECT MAX(prev_revision) FROM kine WHERE name = ?", compactKey)
	if err != nil {
		return nil, err
	}
	last := int64(1)
	if len(entries) > 0 {
		last = entries[len(entries)-1].Mod
	}
	s.index.Apply(entries, last)
	s.expiry = expiry.NewQueue()
	for key, head := range heads {
		s.expire(key, head)
	}
	if compacted > 0 {
		garbage = s.index.Compact(compacted)
	}
	return garbage, nil
}

// readRows returns the entries of all rows in order, the last one of each key, and the damaged rows.
func readRows(c *sqlite.Conn) (heads map[string]keyindex.Rev, entries []keyindex.Entry, bad map[int64]damage, err error) {
	heads = map[string]keyindex.Rev{}
	bad, err = eachRow(c, func(row []driver.Value) {
		if sqlite.Text(row[1]) == compactKey {
			return
		}
		e := parseRow(row)
		if e.Version == 0 && sqlite.Int(row[3]) == 0 { // written by kine, which does not count versions
			e.Version = max(heads[e.Key].Version, 1) + 1
		}
		heads[e.Key] = e.Rev
		entries = append(entries, e)
	})
	return heads, entries, bad, err
}

// expire notes when a revision with a lease ends. The time runs from the write, and after a restart
// from the start again, as with kine.
func (s *Store) expire(key string, r keyindex.Rev) {
	if r.Lease > 0 && !r.Deleted() {
		s.expiry.Add(key, r.Mod, time.Now().Add(time.Duration(r.Lease)*time.Second))
	}
}

// deleteExpired deletes the keys that nobody wrote since.
func (s *Store) deleteExpired(ctx context.Context, due []expiry.Deadline) error {
	return s.Do(ctx, 0, func(tx *Tx) error {
		for _, d := range due {
			if head, ok := tx.Head(d.Key); !ok || head.Mod != d.Revision {
				continue
			}
			if _, err := tx.Delete(d.Key); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close finishes the waiting writes, empties the write-ahead log and closes the file. After a failure the
// file is left as it is, open, for the next process to check: closing would write to it.
func (s *Store) Close() error {
	s.writer.stop()
	s.cancel()
	s.running.Wait()
	var errs []error
	for range maxReaders {
		if c := <-s.readers; c != nil {
			errs = append(errs, c.Close())
		}
	}
	if s.Err() == nil {
		errs = append(errs, s.writer.close())
	}
	return errors.Join(errs...)
}

// Failed is closed when the disk lost data it had promised to keep or the file turned out to be damaged;
// Err says why. The store takes no more writes then and must be opened again.
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
