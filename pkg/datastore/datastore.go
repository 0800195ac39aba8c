// Package datastore is the server's store of record: it serves the etcd v3 API on a unix socket from one
// SQLite file, keeps snapshots of it and repairs itself from them. Only pkg/server and pkg/cli may
// import it.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kedge-io/kedge/pkg/datastore/etcdapi"
	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
	"github.com/kedge-io/kedge/pkg/datastore/watch"
)

// Config is what the datastore needs to know.
type Config struct {
	// Dir holds the database, state.db, and nothing of anybody else. It is created with mode 0700.
	Dir string
	// Socket is the path of the unix socket, at most 107 bytes long.
	Socket string
	// Synchronous is "FULL" (default: acknowledged writes survive a power cut) or "NORMAL" (they
	// survive only a crash of the process, and cost no disk sync).
	Synchronous string
	// ProgressInterval is how often quiet watches hear of progress without asking, which keeps what they
	// know fresh enough to resume from. 0 means 30 s.
	ProgressInterval time.Duration
	// SnapshotDir keeps the snapshots. Empty means snapshots in Dir.
	SnapshotDir string
	// SnapshotInterval is the time between scheduled snapshots. 0 means 12 h, less than 0 none.
	SnapshotInterval time.Duration
	// SnapshotTimes, when set, says when snapshots are taken, instead of SnapshotInterval.
	SnapshotTimes snapshot.Times
	// SnapshotKeep is how many scheduled snapshots stay. 0 means 5.
	SnapshotKeep int
	// SnapshotFiles are absolute paths of files and directories kept with each snapshot.
	SnapshotFiles []string
	// SnapshotEngine makes the snapshots that are saved by hand; nil is SQLite's.
	SnapshotEngine snapshot.Engine
	Log            *slog.Logger
}

const (
	databaseFile  = "state.db"
	maxSocketPath = 107 // sun_path of unix(7) without its end
)

// Datastore is the component. Make it with New.
type Datastore struct {
	cfg      Config
	recovery atomic.Pointer[Recovery]
}

// New checks the configuration and creates the directory. It opens nothing.
func New(cfg Config) (*Datastore, error) {
	switch {
	case cfg.Socket == "":
		return nil, errors.New("datastore socket is not set")
	case cfg.Log == nil:
		return nil, errors.New("datastore log is not set")
	case cfg.Synchronous != "" && cfg.Synchronous != "FULL" && cfg.Synchronous != "NORMAL":
		return nil, fmt.Errorf("datastore synchronous %q: must be FULL or NORMAL", cfg.Synchronous)
	case cfg.SnapshotKeep < 0:
		return nil, fmt.Errorf("datastore snapshots to keep %d: must not be negative", cfg.SnapshotKeep)
	}
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	if cfg.Socket, err = filepath.Abs(cfg.Socket); err != nil {
		return nil, fmt.Errorf("datastore socket: %w", err)
	}
	if len(cfg.Socket) > maxSocketPath {
		return nil, fmt.Errorf("datastore socket %s: the path has %d bytes, the system allows %d: choose a shorter data directory",
			cfg.Socket, len(cfg.Socket), maxSocketPath)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create datastore directory: %w", err)
	}
	return &Datastore{cfg: cfg}, nil
}

// resolve makes the directories absolute and fills in the defaults of snapshots.
func (cfg Config) resolve() (Config, error) {
	if cfg.Dir == "" {
		return cfg, errors.New("datastore directory is not set")
	}
	if cfg.SnapshotDir == "" {
		cfg.SnapshotDir = filepath.Join(cfg.Dir, "snapshots")
	}
	for _, dir := range []*string{&cfg.Dir, &cfg.SnapshotDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return cfg, fmt.Errorf("datastore directory: %w", err)
		}
		*dir = abs
	}
	for _, path := range cfg.SnapshotFiles {
		if !filepath.IsAbs(path) {
			return cfg, fmt.Errorf("datastore snapshot file %s: must be an absolute path", path)
		}
	}
	if cfg.SnapshotInterval == 0 {
		cfg.SnapshotInterval = 12 * time.Hour
	}
	if cfg.SnapshotKeep == 0 {
		cfg.SnapshotKeep = 5
	}
	return cfg, nil
}

func (cfg Config) database() string { return filepath.Join(cfg.Dir, databaseFile) }

// Name implements supervisor.Component.
func (d *Datastore) Name() string { return "datastore" }

// Endpoint returns the URL for the apiserver's --etcd-servers.
func (d *Datastore) Endpoint() string { return "unix://" + d.cfg.Socket }

// Run implements supervisor.Component. It also returns when the disk lost data it had promised to keep
// or the database turned out to be damaged; the next start deals with that.
func (d *Datastore) Run(ctx context.Context) error {
	unlock, err := lock(d.cfg.Dir)
	if err != nil {
		return fmt.Errorf("open datastore: %w", err)
	}
	defer unlock()
	hub := watch.NewHub()
	store, err := d.open(hub)
	if err != nil {
		return fmt.Errorf("open datastore: %w", err)
	}
	rev, _ := store.Revisions()
	hub.Start(store, rev)
	err = d.serve(ctx, store, hub)
	if cerr := store.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close datastore: %w", cerr))
	}
	return err
}

// serve answers on the socket until ctx is done or the store fails.
func (d *Datastore) serve(ctx context.Context, store *mvcc.Store, hub *watch.Hub) error {
	listener, err := listen(d.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listen for datastore clients: %w", err)
	}
	api := etcdapi.New(etcdapi.Config{
		Store: store, Hub: hub, ClientURL: d.Endpoint(), ProgressInterval: d.cfg.ProgressInterval, Log: d.cfg.Log,
	})
	server := newGRPC()
	api.Register(server)
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { api.Run(ctx) })
	schedule := snapshot.Schedule{Config: d.cfg.snapshots(), Interval: d.cfg.SnapshotInterval, Times: d.cfg.SnapshotTimes, Keep: d.cfg.SnapshotKeep, Log: d.cfg.Log}
	background.Go(func() { schedule.Run(ctx) })
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
		stopServer(server)
		<-served
		return nil
	case <-store.Failed():
		stopServer(server)
		return store.Err()
	case err := <-served:
		return fmt.Errorf("serve datastore clients: %w", err)
	}
}

// readyTimeout bounds one question of Ready.
const readyTimeout = time.Second

// Ready implements supervisor.Component. It asks over the socket, so that a left-over file is no answer.
func (d *Datastore) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// gRPC logs a warning when nobody listens, which is usual during the start
	var dialer net.Dialer
	probe, err := dialer.DialContext(ctx, "unix", d.cfg.Socket)
	if err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	if err := probe.Close(); err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	conn, err := grpc.NewClient(d.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	defer conn.Close()
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	return nil
}
