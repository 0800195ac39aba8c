package etcd

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	grpcmetrics "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
	"github.com/kedge-io/kedge/pkg/socket"
)

const (
	snapshotInterval = 12 * time.Hour
	snapshotKeep     = 5

	stopGrace = 2 * time.Second // how long requests may take to end; watches never end by themselves
	upkeep    = 2 * time.Second // between looks at the members
)

// serve answers on the socket until ctx is done or the member stops.
func (m *Member) serve(ctx context.Context, e *embed.Etcd) error {
	listener, err := socket.Listen(m.cfg.Socket) // the data directory is locked: a socket which is there is a left-over
	if err != nil {
		return fmt.Errorf("listen for datastore clients: %w", err)
	}
	server := v3rpc.Server(e.Server, nil, nil,
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		// the API server makes a connection for each resource: keep what an idle one costs small
		grpc.SharedWriteBuffer(true), grpc.ReadBufferSize(8<<10),
	)
	// containerd registers metrics of the same names and cannot bear that they are there; metrics are known by what they describe
	prometheus.Unregister(grpcmetrics.NewServerMetrics())
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { m.tend(ctx, e.Server) })
	if m.cfg.SnapshotDir != "" {
		shots := snapshot.Config{Dir: m.cfg.SnapshotDir, Files: m.cfg.SnapshotFiles, Engine: Engine{Socket: m.cfg.Socket}}
		schedule := snapshot.Schedule{
			Config: shots, Interval: cmp.Or(m.cfg.SnapshotInterval, snapshotInterval), Times: m.cfg.SnapshotTimes, Keep: cmp.Or(m.cfg.SnapshotKeep, snapshotKeep), Log: m.cfg.Log,
		}
		background.Go(func() { schedule.Run(ctx) })
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stop := func() {
		timer := time.AfterFunc(stopGrace, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
		<-served
	}
	select {
	case <-ctx.Done():
		stop()
		return nil
	case err := <-e.Err():
		stop()
		return m.ended(err)
	case <-e.Server.StopNotify():
		stop()
		return m.ended(nil)
	case err := <-served:
		return fmt.Errorf("serve datastore clients: %w", err)
	}
}
