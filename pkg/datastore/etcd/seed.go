package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	etcdbackend "go.etcd.io/etcd/server/v3/storage/backend"
	etcdmvcc "go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
)

// TakeOver makes the keys of a SQLite database, which nobody has open, those of a new one-member cluster. Revisions stay what they were, so
// that clients go on; the database is kept in a directory beside it.
func (m *Member) TakeOver(ctx context.Context, database string) error {
	store, err := mvcc.Open(mvcc.Config{Path: database, MustExist: true, Publish: func([]*mvccpb.Event, int64) {}, Log: m.cfg.Log})
	if err != nil {
		return fmt.Errorf("read %s: %w: start kedge once without --cluster-init to have it repaired", database, err)
	}
	err = m.found("", func(be etcdbackend.Backend) error { return fill(ctx, be, store) })
	if err = errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("take over %s: %w", database, err)
	}
	aside := filepath.Join(filepath.Dir(database), "sqlite-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := snapshot.MoveAside(database, aside); err != nil {
		return err
	}
	m.cfg.Log.Info("the cluster's data moved to etcd", "kept", aside)
	return nil
}

// fill writes the keys of a store, page by page.
func fill(ctx context.Context, be etcdbackend.Backend, store *mvcc.Store) error {
	const page = 500
	revision, _ := store.Revisions()
	tx := be.BatchTx()
	leases := map[int64]bool{}
	key, end := "\x00", "\x00"
	for {
		kvs, p, err := store.Range(key, end, revision, page, true)
		if err != nil {
			return err
		}
		if len(kvs) == 0 {
			break
		}
		tx.LockOutsideApply()
		for _, kv := range kvs {
			raw, err := kv.Marshal()
			if err != nil {
				tx.Unlock()
				return err
			}
			tx.UnsafePut(schema.Key, etcdmvcc.RevToBytes(etcdmvcc.Revision{Main: kv.ModRevision}, etcdmvcc.NewRevBytes()), raw)
			if kv.Lease > 0 {
				leases[kv.Lease] = true
			}
		}
		tx.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		if int64(len(kvs)) >= p.Count {
			break
		}
		key = string(kvs[len(kvs)-1].Key) + "\x00"
	}
	tx.LockOutsideApply()
	defer tx.Unlock()
	for seconds := range leases { // SQLite's leases are named by their time
		schema.MustUnsafePutLease(tx, &leasepb.Lease{ID: seconds, TTL: seconds})
	}
	etcdmvcc.UnsafeSetScheduledCompact(tx, revision) // earlier states are not there
	return nil
}

// found makes a new cluster of this member alone, whose database is the file from, if it has a name, with what write puts into it. The log begins with a snapshot, so that
// members that join get the database and not only the log.
func (m *Member) found(from string, write func(etcdbackend.Backend) error) error {
	fresh := filepath.Join(m.cfg.Dir, "new")
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	snapDir := filepath.Join(fresh, "snap")
	if err := os.MkdirAll(snapDir, 0o700); err != nil {
		return err
	}
	if from != "" {
		if err := os.Rename(from, filepath.Join(snapDir, "db")); err != nil {
			return err
		}
	}
	log := newLogger(m.cfg.Log)
	cluster, member, err := m.alone(log)
	if err != nil {
		return err
	}
	be := etcdbackend.NewDefaultBackend(log, filepath.Join(snapDir, "db"), func(c *etcdbackend.BackendConfig) { c.MmapSize = quotaBytes })
	err = errors.Join(prepare(log, be), write(be))
	if err == nil {
		err = beginLog(log, fresh, be, cluster, member)
	}
	be.ForceCommit()
	if err = errors.Join(err, be.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(m.cfg.Dir, "member"))
}

// alone describes the cluster. Its number is new, so that members of an earlier cluster do not take it for theirs.
func (m *Member) alone(log *zap.Logger) (*membership.RaftCluster, *membership.Member, error) {
	peer, err := url.Parse(m.cfg.PeerURL)
	if err != nil {
		return nil, nil, err
	}
	cluster, err := membership.NewClusterFromURLsMap(log, rand.Text(), types.URLsMap{m.name: types.URLs{*peer}})
	if err != nil {
		return nil, nil, err
	}
	return cluster, cluster.MemberByName(m.name), nil
}

// prepare makes the buckets and forgets the members that a copied database knows.
func prepare(log *zap.Logger, be etcdbackend.Backend) error {
	tx := be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeCreateMetaBucket(tx)
	tx.UnsafeCreateBucket(schema.Key)
	schema.UnsafeCreateLeaseBucket(tx)
	schema.UnsafeSetStorageVersion(tx, &semver.Version{Major: 3, Minor: 6})
	tx.Unlock()
	members := schema.NewMembershipBackend(log, be)
	members.MustCreateBackendBuckets()
	return members.TrimMembershipFromBackend()
}

// beginLog writes a log whose only entry makes the member, already applied and covered by a snapshot.
func beginLog(log *zap.Logger, dir string, be etcdbackend.Backend, cluster *membership.RaftCluster, member *membership.Member) error {
	const index, term = 1, 1
	legacy := v2store.New(etcdserver.StoreClusterPrefix, etcdserver.StoreKeysPrefix)
	cluster.SetStore(legacy)
	cluster.SetBackend(schema.NewMembershipBackend(log, be))
	cluster.AddMember(member, membership.ApplyBoth)
	context, err := json.Marshal(member)
	if err != nil {
		return err
	}
	change := raftpb.ConfChange{Type: raftpb.ConfChangeAddNode, NodeID: uint64(member.ID), Context: context}
	data, err := change.Marshal()
	if err != nil {
		return err
	}
	identity := pb.Metadata{NodeID: uint64(member.ID), ClusterID: uint64(cluster.ID())}
	metadata, err := identity.Marshal()
	if err != nil {
		return err
	}
	voters := raftpb.ConfState{Voters: []uint64{uint64(member.ID)}}
	tx := be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeUpdateConsistentIndexForce(tx, index, term)
	schema.MustUnsafeSaveConfStateToBackend(log, tx, &voters)
	tx.Unlock()
	state, err := legacy.Save()
	if err != nil {
		return err
	}
	wal.SegmentSizeBytes = segmentBytes
	w, err := wal.Create(log, filepath.Join(dir, "wal"), metadata)
	if err != nil {
		return err
	}
	err = w.Save(raftpb.HardState{Term: term, Vote: uint64(member.ID), Commit: index},
		[]raftpb.Entry{{Type: raftpb.EntryConfChange, Term: term, Index: index, Data: data}})
	if err == nil {
		err = snap.New(log, filepath.Join(dir, "snap")).SaveSnap(raftpb.Snapshot{Data: state, Metadata: raftpb.SnapshotMetadata{Index: index, Term: term, ConfState: voters}})
	}
	if err == nil {
		err = w.SaveSnapshot(walpb.Snapshot{Index: index, Term: term, ConfState: &voters})
	}
	return errors.Join(err, w.Close())
}
