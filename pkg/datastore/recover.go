package datastore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
	"github.com/kedge-io/kedge/pkg/datastore/watch"
)

// Recovery tells that a start found the database damaged and what it did about that.
type Recovery struct {
	Time   time.Time
	Reason string // what was wrong with the database
	// Snapshot took the place of the database, which is in Kept now: everything written after it is lost.
	// Both are empty if that was not necessary.
	Snapshot snapshot.Info
	Kept     string
	// Repairs are values that had changed on the disk.
	Repairs []mvcc.Repair
}

// Recovery returns what the start had to repair, or nil. The server reports it as an Event.
func (d *Datastore) Recovery() *Recovery { return d.recovery.Load() }

const (
	// initializedFile says that a datastore was made here: from then on a missing database is a loss, not
	// a new cluster.
	initializedFile = "initialized"
	lockFile        = "lock"
)

// lock makes sure that one process at a time uses the directory.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another kedge uses it, stop that first: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// open opens the database. A damaged one is replaced by the newest snapshot that is whole; without one
// the start fails and everything stays as it is.
func (d *Datastore) open(hub *watch.Hub) (*mvcc.Store, error) {
	initialized := d.has(initializedFile)
	donors, err := snapshot.Databases(d.cfg.SnapshotDir)
	if err != nil {
		return nil, err
	}
	cfg := mvcc.Config{
		Donors: donors,
		Path:   d.cfg.database(), Synchronous: d.cfg.Synchronous, MustExist: initialized,
		Publish: hub.Publish, Log: d.cfg.Log,
	}
	store, err := mvcc.Open(cfg)
	if sqlite.Malformed(err) {
		if err = d.recover(err); err == nil {
			store, err = mvcc.Open(cfg)
		}
	}
	if err != nil {
		return nil, err
	}
	if repairs := store.Repairs(); len(repairs) > 0 {
		r := Recovery{Time: time.Now(), Reason: "values had changed on the disk"}
		if before := d.Recovery(); before != nil {
			r = *before
		}
		r.Repairs = repairs
		d.recovery.Store(&r)
	}
	if !initialized {
		err = d.mark(initializedFile)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// recover puts the newest good snapshot in the place of the database, which cause says is damaged.
func (d *Datastore) recover(cause error) error {
	d.cfg.Log.Error("the database is damaged, looking for a good snapshot", "database", d.cfg.database(), "error", cause)
	snapshots, err := snapshot.List(d.cfg.SnapshotDir)
	if err != nil {
		return errors.Join(cause, err)
	}
	now := time.Now()
	kept := filepath.Join(d.cfg.Dir, "damaged-"+now.UTC().Format("20060102T150405.000Z"))
	for i := len(snapshots) - 1; i >= 0; i-- {
		info, err := snapshot.Restore(d.cfg.snapshots(), snapshots[i].Name, kept, false)
		if err != nil {
			d.cfg.Log.Error("a snapshot cannot be used", "snapshot", snapshots[i].Name, "error", err)
			continue
		}
		d.recovery.Store(&Recovery{Time: now, Reason: cause.Error(), Snapshot: info, Kept: kept})
		d.cfg.Log.Error("the cluster goes on from a snapshot, everything written after it is lost",
			"snapshot", info.Name, "taken", info.Time, "revision", info.Revision, "damagedFiles", kept)
		return nil
	}
	return fmt.Errorf("%w: there is no usable snapshot in %s; put back a copy of %s, or remove %s to start an empty cluster",
		cause, d.cfg.SnapshotDir, d.cfg.database(), d.cfg.Dir)
}

func (d *Datastore) has(name string) bool {
	_, err := os.Stat(filepath.Join(d.cfg.Dir, name))
	return err == nil
}

func (d *Datastore) mark(name string) error {
	if err := os.WriteFile(filepath.Join(d.cfg.Dir, name), nil, 0o600); err != nil {
		return fmt.Errorf("mark datastore as %s: %w", name, err)
	}
	return nil
}
