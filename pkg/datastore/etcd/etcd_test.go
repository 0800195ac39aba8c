package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// world is a set of machines that share an authority.
type world struct {
	t     *testing.T
	certs *certs.Server
	log   *slog.Logger
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := certs.EnsureServer(certs.ServerConfig{
		DataDir: t.TempDir(), APIServerURL: "https://127.0.0.1:6443", PeerIPs: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, certs: s, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// config is that of a member on a free port.
func (w *world) config(node string) etcd.Config {
	w.t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer free.Close()
	sockets, err := os.MkdirTemp("", "etcd")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	return etcd.Config{
		Dir: filepath.Join(w.t.TempDir(), "etcd"), Socket: filepath.Join(sockets, "s"), Node: node, PeerURL: "https://" + free.Addr().String(),
		CAFile: w.certs.PeerCA.Cert, CertFile: w.certs.Peer.Cert, KeyFile: w.certs.Peer.Key, Log: w.log,
	}
}

func (w *world) member(cfg etcd.Config) *etcd.Member {
	w.t.Helper()
	m, err := etcd.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// run starts a component, waits until it is ready, and returns what stops it.
func (w *world) run(c supervisor.Component) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	for begin := time.Now(); c.Ready(ctx) != nil; time.Sleep(20 * time.Millisecond) {
		if len(done) > 0 || time.Since(begin) > 2*time.Minute {
			cancel()
			stopped = true
			w.t.Fatalf("%v, %v", c.Ready(ctx), <-done)
		}
	}
	return stop
}

func (w *world) client(socket string) *clientv3.Client {
	w.t.Helper()
	c, err := etcd.Dial(socket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) put(c *clientv3.Client, key, value string, opts ...clientv3.OpOption) int64 {
	w.t.Helper()
	r, err := c.Put(w.t.Context(), key, value, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Header.Revision
}

// read returns all keys as key=value@revision, and the revision of the whole.
func (w *world) read(c *clientv3.Client) (string, int64) {
	w.t.Helper()
	r, err := c.Get(w.t.Context(), "/", clientv3.WithPrefix())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, kv := range r.Kvs {
		out = append(out, fmt.Sprintf("%s=%s@%d", kv.Key, kv.Value, kv.ModRevision))
	}
	return strings.Join(out, " "), r.Header.Revision
}

// sqlite makes a database as a single server leaves it, and returns its path, keys and revision.
func (w *world) sqlite() (database, keys string, revision int64) {
	w.t.Helper()
	sockets, err := os.MkdirTemp("", "sqlite")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	cfg := datastore.Config{Dir: filepath.Join(w.t.TempDir(), "db"), Socket: filepath.Join(sockets, "s"), SnapshotInterval: -1, Log: w.log}
	d, err := datastore.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	stop := w.run(d)
	c := w.client(cfg.Socket)
	for i := range 700 {
		w.put(c, fmt.Sprintf("/registry/things/%03d", i), strings.Repeat("x", i))
	}
	w.put(c, "/registry/things/007", "again")
	lease, err := c.Grant(w.t.Context(), 3600)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(c, "/registry/events/one", "soon gone", clientv3.WithLease(lease.ID))
	if _, err := c.Delete(w.t.Context(), "/registry/things/008"); err != nil {
		w.t.Fatal(err)
	}
	keys, revision = w.read(c)
	stop()
	return filepath.Join(cfg.Dir, "state.db"), keys, revision
}

func TestDataOfASingleServerReachesAllMembers(t *testing.T) {
	w := newWorld(t)
	database, keys, revision := w.sqlite()
	first := w.config("s-1")
	m1 := w.member(first)
	if err := m1.TakeOver(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	if !etcd.Exists(first.Dir) {
		t.Fatal("no member")
	}
	if _, err := os.Stat(database); err == nil {
		t.Error("the database is still in its place")
	}
	w.run(m1)
	c1 := w.client(first.Socket)
	if got, rev := w.read(c1); got != keys || rev < revision {
		t.Errorf("revision %d of %d; keys differ: %t", rev, revision, got != keys)
	}
	if next := w.put(c1, "/registry/things/next", "n"); next <= revision {
		t.Errorf("revision %d after %d", next, revision)
	}
	if one, err := c1.Get(t.Context(), "/registry/events/one"); err != nil || len(one.Kvs) != 1 || one.Kvs[0].Lease == 0 {
		t.Errorf("event: %v, %v", one, err)
	} else if ttl, err := c1.TimeToLive(t.Context(), clientv3.LeaseID(one.Kvs[0].Lease)); err != nil || ttl.TTL <= 0 {
		t.Errorf("its lease: %v, %v", ttl, err)
	}

	second := w.config("s2")
	second.Enter = m1.Admit
	m2 := w.member(second)
	stop2 := w.run(m2)
	want, _ := w.read(c1)
	if got, _ := w.read(w.client(second.Socket)); got != want {
		t.Error("the second member has other keys")
	}
	// A machine that is not gone cannot be replaced by another of its name.
	thief := w.member(w.config("s2"))
	if _, err := m1.Admit(t.Context(), "s2-00000000", "https://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "a server named s2 runs") {
		t.Errorf("%v: %v", thief, err)
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) { // etcd changes members only when they have been connected for a while
		if err := m1.Remove(t.Context(), "s2"); err == nil {
			break
		} else if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
	}
	_ = stop2 // it ends by itself
	if list, err := c1.MemberList(t.Context()); err != nil || len(list.Members) != 1 || etcd.NodeOf(list.Members[0].Name) != "s-1" {
		t.Errorf("members: %v, %v", list, err)
	}
}

func TestSnapshotOfAMemberIsACluster(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("s1")
	m := w.member(cfg)
	stop := w.run(m)
	c := w.client(cfg.Socket)
	w.put(c, "/registry/a", "kept")
	keys, _ := w.read(c)
	shots := snapshot.Config{Dir: filepath.Join(t.TempDir(), "snapshots"), Engine: etcd.Engine{Socket: cfg.Socket}}
	info, err := snapshot.Save(t.Context(), shots, "one", false)
	if err != nil || info.Engine != etcd.EngineName || info.Revision < 2 {
		t.Fatalf("%+v, %v", info, err)
	}
	last := w.put(c, "/registry/b", "lost")
	stop()
	if _, err := m.Restore(shots.Dir, "one", filepath.Join(cfg.Dir, "aside"), false); err != nil {
		t.Fatal(err)
	}
	m = w.member(cfg)
	w.run(m)
	c = w.client(cfg.Socket)
	if got, rev := w.read(c); got != keys || rev <= last {
		t.Errorf("%s at %d after %d", got, rev, last)
	}
	if _, err := c.Get(t.Context(), "/registry/a", clientv3.WithRev(last)); err == nil {
		t.Error("a state from before the restore can be read")
	}
}
