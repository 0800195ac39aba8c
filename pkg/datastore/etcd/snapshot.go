package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdbackend "go.etcd.io/etcd/server/v3/storage/backend"
	etcdmvcc "go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
)

// EngineName is what snapshots of etcd are marked with.
const EngineName = "etcd"

// Engine copies the database of a running member on this machine.
type Engine struct {
	// Socket is where it answers.
	Socket string
}

// Name implements snapshot.Engine.
func (Engine) Name() string { return EngineName }

// Dial connects to the member that answers on a socket.
func Dial(socket string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("reach datastore: %w", err)
	}
	return c, nil
}

// Remote is an etcd of several servers.
type Remote struct {
	// Endpoints are URLs, with commas between them; unix:// too.
	Endpoints string
	// CAFile, CertFile and KeyFile are for one with TLS; empty otherwise.
	CAFile, CertFile, KeyFile string
}

// Settings are what a client of it is made with; they fail when the files cannot be read.
func (r Remote) Settings() (clientv3.Config, error) {
	c := clientv3.Config{Endpoints: strings.Split(r.Endpoints, ","), DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
	if r.CAFile != "" || r.CertFile != "" {
		settings, err := transport.TLSInfo{TrustedCAFile: r.CAFile, CertFile: r.CertFile, KeyFile: r.KeyFile}.ClientConfig()
		if err != nil {
			return c, fmt.Errorf("certificates of the datastore: %w", err)
		}
		c.TLS = settings
	}
	return c, nil
}

// hashSize is the length of the checksum behind the database that etcd sends.
const hashSize = 32

// Copy implements snapshot.Engine.
func (e Engine) Copy(ctx context.Context, to string) error {
	if _, err := os.Stat(e.Socket); err != nil {
		return fmt.Errorf("kedge must run to have its etcd copied: %w", err)
	}
	c, err := Dial(e.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	from, err := c.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("ask datastore for its database: %w", err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size, err := io.Copy(f, from)
	if err == nil && size%512 != hashSize {
		err = errors.New("the database was cut off on its way")
	}
	if err == nil {
		err = f.Truncate(size - hashSize) // the snapshot has a checksum of its own
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// Verify implements snapshot.Engine.
func (Engine) Verify(path string) (revision int64, err error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for problem := range tx.Check() {
			return problem
		}
		keys := tx.Bucket([]byte("key"))
		if keys == nil {
			return errors.New("it holds no keys")
		}
		if last, _ := keys.Cursor().Last(); last != nil {
			revision = etcdmvcc.BytesToRev(last).Main
		}
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			if rev := meta.Get([]byte("scheduledCompactRev")); rev != nil {
				revision = max(revision, etcdmvcc.BytesToRev(rev).Main)
			}
		}
		return nil
	})
	return revision, errors.Join(err, db.Close())
}

// skipRevisions is how far a restore moves the revision forward, so that no client has seen those that are handed out next.
const skipRevisions = 10_000_000

// Restore makes the database of a snapshot that of a new one-member cluster, while kedge is stopped; the member that was here is kept in the
// directory aside. With files, the files kept with the snapshot go back too.
func (m *Member) Restore(dir, name, aside string, files bool) (snapshot.Info, error) {
	info, err := snapshot.Get(dir, name)
	if err != nil {
		return info, err
	}
	if info.Engine != EngineName {
		return info, fmt.Errorf("snapshot %s is one of SQLite, and this server keeps its data in etcd: restore it on a server without etcd, and start that with --cluster-init", name)
	}
	copied := filepath.Join(m.cfg.Dir, "restore.db")
	defer os.Remove(copied)
	if err := snapshot.CopyOut(dir, info, copied); err != nil {
		return info, fmt.Errorf("snapshot %s: %w", name, err)
	}
	revision, err := Engine{}.Verify(copied)
	if err != nil {
		return info, fmt.Errorf("snapshot %s: %w", name, err)
	}
	if err := os.Mkdir(aside, 0o700); err != nil {
		return info, fmt.Errorf("keep old database: %w", err)
	}
	if err := os.Rename(filepath.Join(m.cfg.Dir, "member"), filepath.Join(aside, "member")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return info, fmt.Errorf("keep old database: %w", err)
	}
	err = m.found(copied, func(be etcdbackend.Backend) error {
		tx := be.BatchTx()
		tx.LockOutsideApply()
		defer tx.Unlock()
		etcdmvcc.UnsafeSetScheduledCompact(tx, revision+skipRevisions)
		return nil
	})
	if err == nil && files {
		err = snapshot.PutBack(dir, info)
	}
	return info, err
}
