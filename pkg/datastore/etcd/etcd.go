// Package etcd is the datastore of several servers: an etcd member inside this process. Its clients use a unix socket of this machine, its
// peers the network, with certificates of an authority of their own.
// It is a feature beside pkg/datastore, whose database it can take over: pkg/server and pkg/cli import it.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
)

// PeerPort is where members reach each other.
const PeerPort = 2380

// Times and sizes. The times bear links of 200 ms and slow cards; a dead leader is replaced within two election times, and a member that is
// alone elects itself within two of its own. What a member keeps in
// memory of the log is at most the entries of two numbers together; one that missed more than the second gets the whole database.
const (
	heartbeat      = 500 * time.Millisecond
	heartbeatAlone = 50 * time.Millisecond
	electionTicks  = 10
	snapshotEvery  = 2000
	catchUpEntries = 2000
	quotaBytes     = 2<<30 - 1 // not etcd's default, which would map 10 GiB
	segmentBytes   = 16 << 20
	defragAbove    = 64 // MiB that a start gives back to the file system
	keepFiles      = 2
)

// Config is what a member needs to know.
type Config struct {
	// Dir is the member's own directory. It is created with mode 0700.
	Dir string
	// Socket is the path of the unix socket for clients.
	Socket string
	// Node is the name of this server; it names the member, with a random end.
	Node string
	// PeerURL is where the other members reach this one, as https://10.0.0.1:2380.
	PeerURL string
	// CAFile, CertFile and KeyFile prove the members to each other.
	CAFile, CertFile, KeyFile string
	// Enter asks the members that there are to take this one, and returns them all as name=URL,name=URL. It is called when this
	// member starts for the first time; nil makes a new cluster.
	Enter func(ctx context.Context, name, peerURL string) (string, error)
	// Reset drops all other members.
	Reset bool
	// SnapshotDir keeps the scheduled snapshots, SnapshotFiles are the absolute paths of what is kept with each.
	SnapshotDir   string
	SnapshotFiles []string
	// SnapshotInterval, SnapshotTimes and SnapshotKeep are as for SQLite: when they are taken, and how many stay.
	SnapshotInterval time.Duration
	SnapshotTimes    snapshot.Times
	SnapshotKeep     int
	Log              *slog.Logger
}

// Member is the component.
type Member struct {
	cfg    Config
	name   string
	server atomic.Pointer[etcdserver.EtcdServer] // while it runs
}

// Exists says whether the directory holds a member that has started.
func Exists(dir string) bool { return wal.Exist(filepath.Join(dir, "member", "wal")) }

// New checks the configuration and creates the directory. It opens nothing.
func New(cfg Config) (*Member, error) {
	peer, err := url.Parse(cfg.PeerURL)
	switch {
	case strconv.IntSize < 64:
		return nil, errors.New("etcd needs a 64-bit system: use --datastore-endpoint with an etcd on other machines")
	case cfg.Dir == "" || cfg.Socket == "" || cfg.Node == "" || cfg.Log == nil:
		return nil, errors.New("etcd: directory, socket, node and log are required")
	case err != nil || peer.Scheme != "https" || peer.Port() == "":
		return nil, fmt.Errorf("etcd: peer URL %q must look like https://10.0.0.1:2380", cfg.PeerURL)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create etcd directory: %w", err)
	}
	name, err := memberName(cfg.Dir, cfg.Node)
	if err != nil {
		return nil, err
	}
	return &Member{cfg: cfg, name: name}, nil
}

// Name implements supervisor.Component.
func (*Member) Name() string { return "datastore" }

// Endpoint returns the URL for the apiserver's --etcd-servers.
func (m *Member) Endpoint() string { return "unix://" + m.cfg.Socket }

// Run implements supervisor.Component.
func (m *Member) Run(ctx context.Context) error {
	cfg, err := m.settings(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer e.Close()
	if started, err := m.started(ctx, e); !started {
		return err
	}
	m.server.Store(e.Server)
	defer m.server.Store(nil)
	return m.serve(ctx, e)
}

// started waits until the other members know this one by name. etcd itself would wait for its own copy of that, which never comes when it was
// in the database that a member gets as it joins, and tries again after 15 seconds only.
func (m *Member) started(ctx context.Context, e *embed.Etcd) (bool, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.Server.ReadyNotify():
			return true, nil
		case <-ctx.Done():
			return false, nil
		case err := <-e.Err():
			return false, m.ended(err)
		case <-e.Server.StopNotify():
			return false, m.ended(nil)
		case <-tick.C:
		}
		if m.isKnown(ctx, e.Server) {
			return true, nil
		}
	}
}

// isKnown says that this member has all that the others had before the question, and among it its own name.
func (m *Member) isKnown(ctx context.Context, s *etcdserver.EtcdServer) bool {
	ctx, cancel := context.WithTimeout(ctx, upkeep)
	defer cancel()
	if s.Leader() == 0 || s.LinearizableReadNotify(ctx) != nil {
		return false
	}
	own := s.Cluster().Member(s.MemberID())
	return own != nil && own.Name == m.name
}

// ended explains why the member stopped by itself.
func (m *Member) ended(err error) error {
	if err == nil {
		err = errors.New("etcd stopped")
	}
	return fmt.Errorf("%w: if this server was removed from the cluster, delete %s and start it with --server and the token to join anew", err, m.cfg.Dir)
}

// settings are etcd's own.
func (m *Member) settings(ctx context.Context) (*embed.Config, error) {
	wal.SegmentSizeBytes = segmentBytes
	peer, err := url.Parse(m.cfg.PeerURL)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = m.name, m.cfg.Dir
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(m.cfg.Log))
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil // the socket is served by this package
	c.EnableGRPCGateway = false
	c.PeerTLSInfo = transport.TLSInfo{
		CertFile: m.cfg.CertFile, KeyFile: m.cfg.KeyFile, TrustedCAFile: m.cfg.CAFile, ClientCertAuth: true,
		SkipClientSANVerify: true, // a member may come from behind another address
	}
	tick := heartbeat
	if m.cfg.Enter == nil && !Exists(m.cfg.Dir) || m.wasAlone() {
		tick = heartbeatAlone
	}
	c.TickMs, c.ElectionMs = uint(tick.Milliseconds()), uint(electionTicks*tick.Milliseconds())
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, catchUpEntries
	c.QuotaBackendBytes, c.BootstrapDefragThresholdMegabytes = quotaBytes, defragAbove
	c.MaxSnapFiles, c.MaxWalFiles = keepFiles, keepFiles
	c.ForceNewCluster = m.cfg.Reset
	c.InitialCluster, c.ClusterState = m.name+"="+m.cfg.PeerURL, embed.ClusterStateFlagNew
	if m.cfg.Enter == nil || Exists(m.cfg.Dir) {
		return c, nil
	}
	if c.InitialCluster, err = m.cfg.Enter(ctx, m.name, m.cfg.PeerURL); err != nil {
		return nil, fmt.Errorf("join the datastore of the other servers: %w", err)
	}
	c.ClusterState = embed.ClusterStateFlagExisting
	return c, nil
}

// Tell implements supervisor.Teller.
func (m *Member) Tell() string {
	s := m.server.Load()
	if s == nil {
		return ""
	}
	if members := nodesOf(s); len(members) > 1 {
		return "servers: " + strings.Join(members, ", ")
	}
	return ""
}

// Ready implements supervisor.Component.
func (m *Member) Ready(context.Context) error {
	s := m.server.Load()
	switch {
	case s == nil:
		return errors.New("etcd is starting, or waits for the other servers")
	case s.Leader() == 0:
		return fmt.Errorf("no leader: more than half of these servers must run and reach each other: %s", strings.Join(nodesOf(s), ", "))
	case s.IsLearner():
		return errors.New("catching up with the other servers")
	}
	return nil
}
