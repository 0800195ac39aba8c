package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/seal"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// tokensKey is where the tokens lie in the datastore of several servers, sealed with a key that is derived from that of their authority.
const tokensKey = "/kedge/tokens"

// tokens are the secrets with which machines join, alike on all servers.
type tokens struct {
	Server string `json:"server"`
	Agent  string `json:"agent"`
}

// tokenBox seals with what all servers have, and nobody else.
func tokenBox(dataDir string) (*seal.Box, error) {
	authority, err := os.ReadFile(certs.NewServerPaths(dataDir).ServerCA.Key)
	if err != nil {
		return nil, fmt.Errorf("read the key of the authority: %w", err)
	}
	return seal.Derive(authority, "kedge tokens")
}

func (t tokens) seal(box *seal.Box) ([]byte, error) {
	plain, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return box.Seal(plain, tokensKey), nil
}

func openTokens(box *seal.Box, sealed []byte) (t tokens, err error) {
	plain, err := box.Open(sealed, tokensKey)
	if err != nil {
		return t, errors.New("the tokens in the datastore are damaged, or those of a cluster with another authority: run kedge token rotate")
	}
	return t, json.Unmarshal(plain, &t)
}

// HasOthers says whether other servers may share the datastore of the server with these settings, which has run.
func HasOthers(cfg config.Server) (bool, error) {
	if cfg.DatastoreEndpoint != "" || etcd.Exists(memberDir(cfg.DataDir)) {
		return true, nil
	}
	if _, err := os.Stat(dbDir(cfg.DataDir)); errors.Is(err, os.ErrNotExist) { // nothing is kept here
		return false, errors.New("this server's datastore is named in the flags of its service only: set datastore-endpoint in /etc/kedge/config.yaml for this command")
	}
	return false, nil
}

// ShareTokens gives the tokens of this server to the others.
func ShareTokens(ctx context.Context, cfg config.Server) error {
	client, err := connect(cfg)
	if err != nil {
		return err
	}
	put, err := ownTokens(cfg)
	ops := []clientv3.Op{put}
	if err == nil && cfg.DatastoreEndpoint != "" {
		var material clientv3.Op
		material, err = sealedMaterial(cfg)
		ops = append(ops, material)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, shareTime/2)
		defer cancel()
		_, err = client.Txn(ctx).Then(ops...).Commit()
	}
	if err = errors.Join(err, client.Close()); err != nil {
		return fmt.Errorf("tell the other servers: %w", err)
	}
	return nil
}

// ownTokens writes the tokens of this server.
func ownTokens(cfg config.Server) (clientv3.Op, error) {
	box, err := tokenBox(cfg.DataDir)
	if err != nil {
		return clientv3.Op{}, err
	}
	var t tokens
	if t.Server, t.Agent, err = join.NewTokenFiles(cfg.DataDir).Secrets(); err != nil {
		return clientv3.Op{}, err
	}
	sealed, err := t.seal(box)
	return clientv3.OpPut(tokensKey, string(sealed)), err
}

// TokenSettings are the tokens of the settings, as far as they count: a server that is one of several has those of the cluster.
func TokenSettings(cfg config.Server) (server, agent string) {
	_, _, err := join.NewTokenFiles(cfg.DataDir).Secrets()
	if err == nil && (cfg.DatastoreEndpoint != "" || etcd.Exists(memberDir(cfg.DataDir))) {
		return "", ""
	}
	return cfg.Token, cfg.AgentToken
}

// NewTokenKeeper is the component that makes the tokens of this server those of the cluster, whichever server they are changed on.
func NewTokenKeeper(cfg config.Server, log *slog.Logger) supervisor.Component {
	k := tokenKeeper{cfg, join.NewTokenFiles(cfg.DataDir), log}
	return supervisor.Func{ID: "tokens", Do: func(ctx context.Context) error {
		told := ""
		for ctx.Err() == nil {
			if err := k.follow(ctx); err != nil && ctx.Err() == nil && err.Error() != told {
				log.Warn("the tokens of the other servers are not known, trying again", "error", err)
				told = err.Error()
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
		}
		return nil
	}}
}

type tokenKeeper struct {
	cfg   config.Server
	files join.TokenFiles
	log   *slog.Logger
}

// follow takes over what is in the datastore, again and again.
func (k tokenKeeper) follow(ctx context.Context) error {
	client, err := connect(k.cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	box, err := tokenBox(k.cfg.DataDir)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		revision, err := k.look(ctx, client, box)
		if err != nil {
			return err
		}
		watch, stop := context.WithCancel(ctx)
		<-client.Watch(watch, tokensKey, clientv3.WithRev(revision+1)) // a change, or an error after which it is looked at anew
		stop()
	}
	return nil
}

// look takes the tokens over, or, when there are none yet, leaves those of this server.
func (k tokenKeeper) look(ctx context.Context, client *clientv3.Client, box *seal.Box) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, shareTime/2)
	defer cancel()
	found, err := client.Get(ctx, tokensKey)
	if err != nil {
		return 0, fmt.Errorf("read the tokens: %w", err)
	}
	if len(found.Kvs) == 0 {
		put, err := ownTokens(k.cfg)
		if err == nil {
			_, err = client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(tokensKey), "=", 0)).Then(put).Commit()
		}
		return found.Header.Revision, err
	}
	t, err := openTokens(box, found.Kvs[0].Value)
	if err != nil {
		k.log.Warn("the tokens of this server stay as they are", "error", err)
		return found.Header.Revision, nil
	}
	changed, err := k.files.Take(t.Server, t.Agent)
	if err != nil {
		return 0, err
	}
	if changed {
		k.log.Info("the tokens were changed on another server, and are changed here")
	}
	for flag, one := range map[string]struct{ given, is string }{"token": {k.cfg.Token, t.Server}, "agent-token": {k.cfg.AgentToken, t.Agent}} {
		if given, err := join.ParseToken(one.given); one.given != "" && (err != nil || given.Secret != one.is) {
			k.log.Warn("a token in the settings of this server is not the cluster's any more, and does not count: remove it there", "setting", flag)
		}
	}
	return found.Header.Revision, nil
}
