package cluster

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/seal"
)

// Keys in a datastore that several servers share; everything else there is Kubernetes' own.
const (
	materialKey = "/kedge/material"
	lockKey     = "/kedge/lock"
)

// shareTime bounds how long the datastore may take.
const shareTime = time.Minute

// connect reaches the datastore of several servers: the shared one, or the etcd of this server.
func connect(cfg config.Server) (*clientv3.Client, error) {
	if cfg.DatastoreEndpoint == "" {
		return etcd.Dial(Socket)
	}
	remote := etcd.Remote{Endpoints: cfg.DatastoreEndpoint, CAFile: cfg.DatastoreCAFile, CertFile: cfg.DatastoreCertFile, KeyFile: cfg.DatastoreKeyFile}
	c, err := remote.Settings()
	if err != nil {
		return nil, err
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
		var record *clientv3.GetResponse
		if record, err = client.Get(limited, tokensKey); err == nil {
			err = take(cfg, found.Kvs[0].Value, record.Kvs)
		}
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

// take opens what the first server left. record holds the tokens that servers keep there, if any.
func take(cfg config.Server, sealed []byte, record []*mvccpb.KeyValue) error {
	files := join.NewTokenFiles(cfg.DataDir)
	var secrets []string
	if cfg.Token != "" {
		given, err := join.ParseToken(cfg.Token)
		if err != nil {
			return err
		}
		secrets = append(secrets, given.Secret)
	}
	stored, agent, missing := files.Secrets()
	if missing == nil {
		secrets = append(secrets, stored)
	}
	if box, err := tokenBox(cfg.DataDir); err == nil && len(record) > 0 { // the token was changed while this server was off
		if t, err := openTokens(box, record[0].Value); err == nil {
			secrets, agent = append(secrets, t.Server), t.Agent
		}
	}
	data, secret, err := openAny(sealed, secrets)
	if err != nil {
		return err
	}
	var m material
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("open what servers share: %w", err)
	}
	if err := m.differs(cfg); err != nil {
		return err
	}
	if err := m.put(cfg.DataDir); err != nil || missing != nil {
		return err
	}
	_, err = files.Take(secret, agent)
	return err
}

// openAny opens with the first secret that does.
func openAny(sealed []byte, secrets []string) (data []byte, secret string, err error) {
	if len(secrets) == 0 {
		return nil, "", errors.New("--token is not set: the datastore belongs to a cluster, whose servers have a token (sudo cat /var/lib/kedge/server/token on one of them)")
	}
	for i, secret := range secrets {
		if slices.Contains(secrets[:i], secret) {
			continue
		}
		data, err := unlock(sealed, secret)
		if err == nil {
			return data, secret, nil
		}
		if !errors.Is(err, errSealed) {
			return nil, "", fmt.Errorf("open what servers share: %w", err)
		}
	}
	return nil, "", errors.New("--token is not that of the cluster in the datastore: take it from another server (sudo cat /var/lib/kedge/server/token)")
}

// leave stores the material of this server.
func leave(ctx context.Context, client *clientv3.Client, cfg config.Server) error {
	put, err := sealedMaterial(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	if _, err := client.Do(ctx, put); err != nil {
		return fmt.Errorf("store what servers share: %w", err)
	}
	return nil
}

// sealedMaterial writes the material of this server, sealed with its token.
func sealedMaterial(cfg config.Server) (clientv3.Op, error) {
	secret, _, err := join.NewTokenFiles(cfg.DataDir).Secrets()
	if err != nil {
		return clientv3.Op{}, err
	}
	data, err := Material(cfg)
	if err != nil {
		return clientv3.Op{}, err
	}
	sealed, err := lock(data, secret)
	return clientv3.OpPut(materialKey, string(sealed)), err
}

// The sealed form is a version, a salt, and what a box made of the rest; its key is PBKDF2-HMAC-SHA256 of the token's secret, with the number of
// rounds that OWASP's Password Storage Cheat Sheet asks for.
const (
	sealVersion = 1
	saltSize    = 16
	rounds      = 600_000
)

// errSealed says that a token does not open what is sealed.
var errSealed = errors.New("the token does not open it")

func passwordBox(secret string, salt []byte) (*seal.Box, error) {
	key, err := pbkdf2.Key(sha256.New, secret, salt, rounds, seal.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	return seal.New(key)
}

// lock encrypts data with a key derived from a token's secret.
func lock(data []byte, secret string) ([]byte, error) {
	head := make([]byte, 1+saltSize)
	if _, err := rand.Read(head[1:]); err != nil {
		return nil, err
	}
	head[0] = sealVersion
	box, err := passwordBox(secret, head[1:])
	if err != nil {
		return nil, err
	}
	return append(head, box.Seal(data, string(head))...), nil
}

// unlock decrypts what lock made; errSealed when the secret is another.
func unlock(sealed []byte, secret string) ([]byte, error) {
	if len(sealed) < 1+saltSize || sealed[0] != sealVersion {
		return nil, errors.New("it was sealed by another version of kedge")
	}
	head := sealed[:1+saltSize]
	box, err := passwordBox(secret, head[1:])
	if err != nil {
		return nil, err
	}
	data, err := box.Open(sealed[len(head):], string(head))
	if err != nil {
		return nil, errSealed
	}
	return data, nil
}
