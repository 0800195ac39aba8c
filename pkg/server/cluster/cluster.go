// Package cluster makes a server one of several: its member of the common datastore, and what it needs to know to be trusted by the others.
// Only server imports it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
)

// Socket is where the datastore is served to the API server of the same machine.
const Socket = "/run/kedge/datastore.sock"

func dbDir(dataDir string) string { return filepath.Join(dataDir, "server", "db") }

func memberDir(dataDir string) string { return filepath.Join(dbDir(dataDir), "etcd") }

// HasMember says whether this server keeps its data in an etcd of its own: it did so before, or is to do so now.
func HasMember(cfg config.Server) bool {
	return cfg.DatastoreEndpoint == "" && (cfg.ClusterInit || len(cfg.Servers) > 0 || etcd.Exists(memberDir(cfg.DataDir)))
}

// SnapshotFiles are what a restored site needs beside its data: its authorities, keys and tokens.
func SnapshotFiles(dataDir string) []string {
	in := func(name string) string { return filepath.Join(dataDir, "server", name) }
	return []string{in("tls"), in("cred"), in("token"), in("agent-token")} // node-token leads to token
}

// SnapshotTimes says when to take snapshots: the time between two, less than 0 for never, and what says otherwise, or nil.
func SnapshotTimes(cfg config.Server) (time.Duration, snapshotTimes, error) {
	switch {
	case cfg.DisableSnapshots:
		return -1, nil, nil
	case cfg.SnapshotSchedule == "":
		return 0, nil, nil
	}
	times, err := cron.ParseStandard(cfg.SnapshotSchedule)
	if err != nil {
		return 0, nil, fmt.Errorf("--etcd-snapshot-schedule-cron: %w", err)
	}
	return 0, times, nil
}

type snapshotTimes = interface {
	Next(after time.Time) time.Time
}

// SnapshotEngine is what snapshots of the server with this data directory are made with.
func SnapshotEngine(dataDir string) datastore.SnapshotEngine {
	if etcd.Exists(memberDir(dataDir)) {
		return etcd.Engine{Socket: Socket}
	}
	return nil
}

// Reset drops all other members from the datastore of this server.
func Reset(ctx context.Context, m *etcd.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	for m.Ready(ctx) != nil {
		select {
		case err := <-ended:
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("reset the datastore: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	cancel()
	return <-ended
}

// Restore makes the data of a snapshot those of a cluster of this server alone, while kedge is stopped.
func Restore(cfg config.Server, name string, files bool) (datastore.Snapshot, error) {
	m, err := NewMember(cfg, certs.NewServerPaths(cfg.DataDir), slog.New(slog.DiscardHandler))
	if err != nil {
		return datastore.Snapshot{}, err
	}
	db := dbDir(cfg.DataDir)
	info, err := m.Restore(filepath.Join(db, "snapshots"), name, filepath.Join(db, "replaced-"+time.Now().UTC().Format("20060102T150405.000Z")), files)
	if err != nil {
		return info, fmt.Errorf("restore snapshot: %w", err)
	}
	return info, nil
}

// NewMember prepares the etcd of this server. Data in SQLite moves there.
func NewMember(cfg config.Server, files certs.ServerPaths, log *slog.Logger) (*etcd.Member, error) {
	c := etcd.Config{
		Dir: memberDir(cfg.DataDir), Socket: Socket, Node: cfg.NodeName,
		PeerURL: "https://" + net.JoinHostPort(cfg.NodeIPs[0].String(), strconv.Itoa(etcd.PeerPort)),
		CAFile:  files.PeerCA.Cert, CertFile: files.Peer.Cert, KeyFile: files.Peer.Key,
		SnapshotDir: filepath.Join(dbDir(cfg.DataDir), "snapshots"), SnapshotFiles: SnapshotFiles(cfg.DataDir), Reset: cfg.ClusterReset, Log: log,
	}
	var err error
	if c.SnapshotInterval, c.SnapshotTimes, err = SnapshotTimes(cfg); err != nil {
		return nil, err
	}
	c.SnapshotKeep = cfg.SnapshotRetention
	if len(cfg.Servers) > 0 {
		client, err := newClient(cfg, log)
		if err != nil && !etcd.Exists(c.Dir) {
			return nil, err
		}
		if err == nil {
			c.Enter = client.Enter
		}
	}
	m, err := etcd.New(c)
	if err != nil {
		return nil, err
	}
	database := filepath.Join(dbDir(cfg.DataDir), "state.db")
	if _, err := os.Stat(database); errors.Is(err, os.ErrNotExist) || etcd.Exists(c.Dir) {
		return m, nil
	}
	if err := m.TakeOver(context.Background(), database); err != nil {
		return nil, fmt.Errorf("move to etcd: %w", err)
	}
	return m, nil
}
