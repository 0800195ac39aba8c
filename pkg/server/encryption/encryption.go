// Package encryption keeps the keys with which the API servers of a cluster encrypt Secrets in the datastore: it makes them, hands them to all
// servers, and has Secrets written anew when the key changes. Only server imports it.
package encryption

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Config is what the parts of this package need to know.
type Config struct {
	// File is where the API server finds its configuration.
	File string
	// Wanted turns encryption on for a cluster that has never had it.
	Wanted bool
	// Type is that of new keys; empty keeps the type that the cluster has, and begins with AESCBC.
	Type string
	// Datastore is where the keys are shared, sealed with Authority, the key of the cluster's authority.
	Datastore Datastore
	Authority []byte
	// Alone says that no other server shares the datastore; Members that each server has a member of its own in it.
	Alone, Members bool
	// Kubeconfig is of an identity that may read and write all Secrets, nodes and metrics.
	Kubeconfig string
	Log        *slog.Logger
}

// Path is where a server with this data directory keeps the configuration of its API server.
func Path(dataDir string) string {
	return filepath.Join(dataDir, "server", "cred", "encryption-config.json")
}

// Keys hands the keys to the API server of this machine, and on one server of the cluster takes changes forward.
type Keys struct {
	cfg     Config
	state   atomic.Pointer[State] // as this server knows it; nil while off
	changed chan struct{}         // holds one when the state has changed
	problem atomic.Pointer[string]
}

// New prepares the keys; it connects to nothing.
func New(cfg Config) *Keys { return &Keys{cfg: cfg, changed: make(chan struct{}, 1)} }

// pause is how long to wait after a failure.
const pause = 2 * time.Second

// Prepare brings the keys that the cluster has to this machine, makes the first one when that is wanted, and returns the file for the API
// server, or nothing when Secrets are not encrypted. Until ctx ends, the file follows the cluster. The datastore must answer: it waits for it.
func (k *Keys) Prepare(ctx context.Context) (file string, err error) {
	s, err := openStore(k.cfg.Datastore, k.cfg.Authority)
	if err != nil {
		return "", err
	}
	for told := false; ; told = true {
		state, revision, err := k.obtain(ctx, s)
		switch {
		case err == nil && state == nil:
			s.close()
			return "", nil
		case err == nil:
			if err := k.write(*state); err != nil {
				s.close()
				return "", err
			}
			go func() {
				defer s.close()
				k.follow(ctx, s, revision)
			}()
			return k.cfg.File, nil
		case ctx.Err() != nil, !waits(err):
			s.close()
			return "", fmt.Errorf("keys for Secrets: %w", err)
		}
		if !told {
			k.cfg.Log.Warn("keys for Secrets are not known yet, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// waits reports whether an error may go away by itself.
func waits(err error) bool {
	return errors.Is(err, errChanged) || errors.As(err, new(unreachable))
}

// obtain reads the state, or makes it.
func (k *Keys) obtain(ctx context.Context, s *store) (*State, int64, error) {
	state, revision, err := s.load(ctx)
	if err != nil || state != nil {
		return state, revision, err
	}
	data, err := os.ReadFile(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		if !k.cfg.Wanted {
			return nil, 0, nil
		}
	} else if err != nil {
		return nil, 0, fmt.Errorf("read encryption configuration: %w", err)
	}
	var keys []Key // of a file that was there before: the data were restored, or come from another program of the family
	if err == nil {
		if keys, err = keysOf(data); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", k.cfg.File, err)
		}
	}
	used, err := s.used(ctx)
	if err != nil {
		return nil, 0, err
	}
	made, err := first(k.cfg.Type, keys, used)
	if err != nil {
		return nil, 0, err
	}
	if err := s.save(ctx, made, 0); err != nil {
		return nil, 0, err
	}
	return s.load(ctx)
}

// follow keeps the file as the cluster's state is.
func (k *Keys) follow(ctx context.Context, s *store, revision int64) {
	for ctx.Err() == nil {
		for answer := range s.client.Watch(clientv3.WithRequireLeader(ctx), stateKey, clientv3.WithRev(revision+1)) {
			if answer.Err() != nil {
				break
			}
			for _, e := range answer.Events {
				revision = e.Kv.ModRevision
				if e.Type != clientv3.EventTypePut {
					continue
				}
				if state, err := disclose(s.box, e.Kv.Value); err != nil {
					k.cfg.Log.Error("keys for Secrets cannot be read", "error", err)
				} else if err := k.write(state); err != nil {
					k.cfg.Log.Error("keys for Secrets cannot be kept for the API server", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if state, now, err := s.load(ctx); err == nil && state != nil && now > revision {
			if err := k.write(*state); err == nil {
				revision = now
			}
		}
	}
}

// write makes the state that of this server: its API server reads the file again within seconds.
func (k *Keys) write(state State) error {
	data, err := state.Configuration()
	if err != nil {
		return err
	}
	if err := replace(k.cfg.File, data); err != nil {
		return fmt.Errorf("write encryption configuration: %w", err)
	}
	k.state.Store(&state)
	select {
	case k.changed <- struct{}{}:
	default:
	}
	return nil
}

// replace puts data at path as a whole, for root only, through a power cut too.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".kedge-tmp-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
