package datastore

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
)

// Snapshot is what is known of a snapshot.
type Snapshot = snapshot.Info

func (cfg Config) snapshots() snapshot.Config {
	return snapshot.Config{Database: cfg.database(), Dir: cfg.SnapshotDir, Files: cfg.SnapshotFiles}
}

// SaveSnapshot takes a snapshot now, of a running or a stopped datastore, also from another process. An
// empty name becomes the time. Only Dir and the fields about snapshots of cfg are used.
func SaveSnapshot(ctx context.Context, cfg Config, name string) (Snapshot, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return Snapshot{}, err
	}
	return snapshot.Save(ctx, cfg.snapshots(), name, false)
}

// ListSnapshots returns the snapshots there are, oldest first.
func ListSnapshots(cfg Config) ([]Snapshot, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	return snapshot.List(cfg.SnapshotDir)
}

// DeleteSnapshot removes a snapshot.
func DeleteSnapshot(cfg Config, name string) error {
	cfg, err := cfg.resolve()
	if err != nil {
		return err
	}
	return snapshot.Delete(cfg.SnapshotDir, name)
}

// RestoreSnapshot replaces the database of a stopped datastore, and with files also the files kept with
// the snapshot. The old database stays in a directory beside it.
func RestoreSnapshot(cfg Config, name string, files bool) (Snapshot, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return Snapshot{}, err
	}
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("restore snapshot: %w", err)
	}
	defer unlock()
	aside := filepath.Join(cfg.Dir, "replaced-"+time.Now().UTC().Format("20060102T150405.000Z"))
	info, err := snapshot.Restore(cfg.snapshots(), name, aside, files)
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("restore snapshot: %w", err)
	}
	return info, nil
}

// firstSnapshot is how long a new datastore waits for its first snapshot, so that it has one soon.
const firstSnapshot = 5 * time.Minute

// untilSnapshot is how long it is to the next scheduled snapshot.
func untilSnapshot(now time.Time, existing []snapshot.Info, interval time.Duration) time.Duration {
	wait := min(firstSnapshot, interval)
	for _, s := range existing {
		if s.Scheduled && s.Time.Before(now) {
			wait = max(time.Minute, s.Time.Add(interval).Sub(now))
		}
	}
	return min(wait, interval)
}

// retrySnapshot is the wait after a snapshot that failed.
const retrySnapshot = 10 * time.Minute

// takeSnapshots takes the scheduled snapshots until ctx is done.
func (d *Datastore) takeSnapshots(ctx context.Context) {
	if d.cfg.SnapshotInterval < 0 {
		return
	}
	for {
		existing, err := snapshot.List(d.cfg.SnapshotDir)
		if err != nil {
			d.cfg.Log.Error("cannot list the snapshots", "error", err)
		}
		wait := untilSnapshot(time.Now(), existing, d.cfg.SnapshotInterval)
		if !sleep(ctx, wait) {
			return
		}
		if err := d.scheduledSnapshot(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Error("cannot take the scheduled snapshot", "error", err)
			if !sleep(ctx, min(retrySnapshot, d.cfg.SnapshotInterval)) {
				return
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// scheduledSnapshot takes one snapshot and deletes those that are too many; never the other way round.
func (d *Datastore) scheduledSnapshot(ctx context.Context) error {
	if _, err := snapshot.Save(ctx, d.cfg.snapshots(), "", true); err != nil {
		return err
	}
	existing, err := snapshot.List(d.cfg.SnapshotDir)
	if err != nil {
		return err
	}
	for _, old := range snapshot.Expired(existing, d.cfg.SnapshotKeep) {
		if err := snapshot.Delete(d.cfg.SnapshotDir, old.Name); err != nil {
			return err
		}
	}
	return nil
}
