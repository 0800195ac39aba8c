package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
)

// Keys in a datastore that several servers share; everything else there is Kubernetes' own.
const (
	materialKey = "/kedge/material"
	lockKey     = "/kedge/lock"
)

// shareTime bounds how long the datastore may take.
const shareTime = time.Minute

// connect reaches the shared datastore.
func connect(cfg config.Server) (*clientv3.Client, error) {
	c := clientv3.Config{Endpoints: strings.Split(cfg.DatastoreEndpoint, ","), DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
	if cfg.DatastoreCAFile != "" || cfg.DatastoreCertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: cfg.DatastoreCAFile, CertFile: cfg.DatastoreCertFile, KeyFile: cfg.DatastoreKeyFile}
		settings, err := info.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("certificates of the datastore: %w", err)
		}
		c.TLS = settings
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, fmt.Errorf("reach --datastore-endpoint: %w", err)
	}
	return client, nil
}

// share takes over what the first server left in the datastore, sealed with the token. The first server leaves it there with done; until then
// no other looks.
func share(ctx context.Context, cfg config.Server) (done func(context.Context) error, err error) {
	client, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	var session *concurrency.Session
	if session, err = concurrency.NewSession(client, concurrency.WithTTL(int(shareTime.Seconds())), concurrency.WithContext(ctx)); err == nil {
		err = concurrency.NewMutex(session, lockKey).Lock(limited)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach --datastore-endpoint %s: %w", cfg.DatastoreEndpoint, err), client.Close())
	}
	found, err := client.Get(limited, materialKey)
	if err == nil && len(found.Kvs) > 0 {
		err = take(cfg, found.Kvs[0].Value)
	}
	if err != nil {
		return nil, errors.Join(err, session.Close(), client.Close())
	}
	return func(ctx context.Context) error {
		defer client.Close()
		defer session.Close()
		if len(found.Kvs) > 0 {
			return nil
		}
		return leave(ctx, client, cfg)
	}, nil
}

// take opens what the first server left.
func take(cfg config.Server, sealed []byte) error {
	secret, err := secretOf(cfg)
	if err != nil {
		return err
	}
	if secret == "" {
		return errors.New("--token is not set: the datastore belongs to a cluster, whose servers have a token (sudo cat /var/lib/kedge/server/token on one of them)")
	}
	data, err := open(sealed, secret)
	if errors.Is(err, errSealed) {
		return errors.New("--token is not that of the cluster in the datastore: take it from another server (sudo cat /var/lib/kedge/server/token)")
	}
	if err != nil {
		return fmt.Errorf("open what servers share: %w", err)
	}
	var m material
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("open what servers share: %w", err)
	}
	if err := m.differs(cfg); err != nil {
		return err
	}
	return m.put(cfg.DataDir)
}

// leave stores the material of this server.
func leave(ctx context.Context, client *clientv3.Client, cfg config.Server) error {
	secret, err := secretOf(cfg)
	if err != nil {
		return err
	}
	data, err := Material(cfg)
	if err != nil {
		return err
	}
	sealed, err := seal(data, secret)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	if _, err := client.Put(ctx, materialKey, string(sealed)); err != nil {
		return fmt.Errorf("store what servers share: %w", err)
	}
	return nil
}

// Reseal stores the material anew, after the token of this server has changed.
func Reseal(ctx context.Context, cfg config.Server) error {
	if cfg.DatastoreEndpoint == "" {
		return nil
	}
	client, err := connect(cfg)
	if err != nil {
		return err
	}
	return errors.Join(leave(ctx, client, cfg), client.Close())
}

// secretOf is the secret of the server token: that of the settings, else the stored one; empty when there is none yet.
func secretOf(cfg config.Server) (string, error) {
	text := cfg.Token
	if text == "" {
		stored, err := os.ReadFile(filepath.Join(cfg.DataDir, "server", "token"))
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		text = string(stored)
	}
	token, err := join.ParseToken(text)
	return token.Secret, err
}
