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
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/kedge-io/kedge/pkg/datastore/etcdapi"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
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
	// ProgressInterval is how often quiet watches hear of progress without asking. 0 means 5 s.
	ProgressInterval time.Duration
	Log              *slog.Logger
}

const (
	databaseFile  = "state.db"
	maxSocketPath = 107 // sun_path of unix(7) without its end
)

// Datastore is the component. Make it with New.
type Datastore struct {
	cfg Config
}

// New checks the configuration and creates the directory. It opens nothing.
func New(cfg Config) (*Datastore, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("datastore directory is not set")
	case cfg.Socket == "":
		return nil, errors.New("datastore socket is not set")
	case cfg.Log == nil:
		return nil, errors.New("datastore log is not set")
	case cfg.Synchronous != "" && cfg.Synchronous != "FULL" && cfg.Synchronous != "NORMAL":
		return nil, fmt.Errorf("datastore synchronous %q: must be FULL or NORMAL", cfg.Synchronous)
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("datastore directory: %w", err)
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

// Name implements supervisor.Component.
func (d *Datastore) Name() string { return "datastore" }

// Endpoint returns the URL for the apiserver's --etcd-servers.
func (d *Datastore) Endpoint() string { return "unix://" + d.cfg.Socket }

// Run implements supervisor.Component. It also returns when the disk lost data it had promised to
// keep: the database must be read again then, which the next start does.
func (d *Datastore) Run(ctx context.Context) error {
	hub := watch.NewHub()
	store, err := sqlite.Open(sqlite.Config{
		Path: filepath.Join(d.cfg.Dir, databaseFile), Synchronous: d.cfg.Synchronous,
		Publish: func(events []*mvccpb.Event, rev int64) { hub.Publish(events, rev) }, Log: d.cfg.Log,
	})
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
func (d *Datastore) serve(ctx context.Context, store *sqlite.Store, hub *watch.Hub) error {
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
	defer cancel()
	go api.Run(ctx)
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

// stopGrace is how long requests may take to end; watches never end by themselves.
const stopGrace = 2 * time.Second

func stopServer(server *grpc.Server) {
	timer := time.AfterFunc(stopGrace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// newGRPC limits requests as etcd does.
func newGRPC() *grpc.Server {
	return grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxRecvMsgSize(2<<20), // 1.5 MiB for the request, the rest for its wrapping
		grpc.MaxSendMsgSize(1<<31-1),
	)
}

// listen makes the socket, for this user only. A socket without a listener behind it is a left-over of
// a crash and is removed; one with a listener is an error.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("another process answers on %s: stop it first", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// Ready implements supervisor.Component. It asks over the socket, so that a left-over file is no answer.
func (d *Datastore) Ready(ctx context.Context) error {
	conn, err := grpc.NewClient(d.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return fmt.Errorf("reach datastore: %w", err)
	}
	return nil
}
