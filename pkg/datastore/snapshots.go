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

// SnapshotEngine copies a database that is in use.
type SnapshotEngine = snapshot.Engine

func (cfg Config) snapshots() snapshot.Config {
	return snapshot.Config{Database: cfg.database(), Dir: cfg.SnapshotDir, Files: cfg.SnapshotFiles, Engine: cfg.SnapshotEngine}
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

// ExpiredSnapshots are those on schedule that are too many when keep of them are to stay, oldest first.
func ExpiredSnapshots(infos []Snapshot, keep int) []Snapshot { return snapshot.Expired(infos, keep) }

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
