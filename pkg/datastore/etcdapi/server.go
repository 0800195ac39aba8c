// Package etcdapi serves the part of etcd's v3 gRPC API that Kubernetes uses, and the rest of the
// key-value API where it costs nothing. Only pkg/datastore may import it.
package etcdapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
	"github.com/kedge-io/kedge/pkg/datastore/watch"
)

// EmulatedVersion is the etcd version the server claims to be. The apiserver asks for progress
// notifications only from 3.4.25 and 3.5.8 on.
const EmulatedVersion = "3.6.13"

// maxRequestBytes is etcd's default limit for one write.
const maxRequestBytes = 1536 * 1024

// Config holds what the server serves.
type Config struct {
	Store *mvcc.Store
	Hub   *watch.Hub
	// ClientURL is what MemberList answers.
	ClientURL string
	// ProgressInterval is how often idle watches hear of progress without asking. 0 means 30 s.
	ProgressInterval time.Duration
	Log              *slog.Logger
}

// Server implements the etcd services on a store.
type Server struct {
	pb.UnimplementedLeaseServer
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer
	cfg   Config
	store *mvcc.Store
	hub   *watch.Hub
}

// New returns a server; Register adds its services to a gRPC server.
func New(cfg Config) *Server {
	if cfg.ProgressInterval == 0 {
		cfg.ProgressInterval = 30 * time.Second
	}
	return &Server{cfg: cfg, store: cfg.Store, hub: cfg.Hub}
}

// Register adds the key-value, watch, lease, cluster, maintenance and health services to g.
func (s *Server) Register(g *grpc.Server) {
	pb.RegisterKVServer(g, s)
	pb.RegisterWatchServer(g, s)
	pb.RegisterLeaseServer(g, s)
	pb.RegisterClusterServer(g, s)
	pb.RegisterMaintenanceServer(g, s)
	hs := health.NewServer()
	hs.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(g, hs)
}

// Run sends regular progress to the watches that asked for it, until ctx is done.
func (s *Server) Run(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.ProgressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.hub.Tick()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

// LeaseGrant hands out the time to live itself as the lease's ID, as kine does: a key with a lease ends
// that many seconds after its last write. Leases cannot be kept alive or revoked.
func (s *Server) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if r.TTL <= 0 {
		return nil, status.Error(codes.InvalidArgument, "lease TTL must be positive")
	}
	rev, _ := s.store.Revisions()
	return &pb.LeaseGrantResponse{Header: s.header(rev), ID: r.TTL, TTL: r.TTL}, nil
}

// MemberList answers with this server alone.
func (s *Server) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	urls := []string{s.cfg.ClientURL}
	return &pb.MemberListResponse{
		Header:  &pb.ResponseHeader{},
		Members: []*pb.Member{{ID: 1, Name: "kedge", ClientURLs: urls, PeerURLs: urls}},
	}, nil
}

// Status answers with the emulated version and the bytes on disk.
func (s *Server) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	if err := s.store.Err(); err != nil {
		return nil, rpctypes.ErrGRPCUnhealthy
	}
	rev, _ := s.store.Revisions()
	database, _ := s.store.Size()
	return &pb.StatusResponse{
		Header: s.header(rev), Version: EmulatedVersion, StorageVersion: "3.6.0",
		DbSize: database, DbSizeInUse: database, Leader: 1,
	}, nil
}

// Alarm answers that there is none; a full disk is told to those who write.
func (s *Server) Alarm(_ context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, status.Error(codes.Unimplemented, "alarms cannot be set or cleared")
	}
	rev, _ := s.store.Revisions()
	return &pb.AlarmResponse{Header: s.header(rev)}, nil
}

// toStatus turns the errors of the store into those of etcd. What the disk says is for the log only.
func (s *Server) toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyindex.ErrCompacted):
		return rpctypes.ErrGRPCCompacted
	case errors.Is(err, keyindex.ErrFuture):
		return rpctypes.ErrGRPCFutureRev
	case errors.Is(err, mvcc.ErrNoSpace):
		return rpctypes.ErrGRPCNoSpace
	case errors.Is(err, mvcc.ErrClosed):
		return rpctypes.ErrGRPCStopped
	case errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	case errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	s.cfg.Log.Error("datastore request failed", "error", err)
	if sqlite.Malformed(err) {
		return rpctypes.ErrGRPCCorrupt
	}
	return rpctypes.ErrGRPCUnhealthy
}
