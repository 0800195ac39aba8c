package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/join"
)

// Prepare gives a server what the others have, before it makes anything of its own. done must be called when the server's own authorities
// and tokens are in place.
func Prepare(ctx context.Context, cfg config.Server, log *slog.Logger) (done func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	switch {
	case cfg.DatastoreEndpoint != "":
		return share(ctx, cfg)
	case len(cfg.Servers) == 0 || etcd.Exists(memberDir(cfg.DataDir)):
		return nothing, nil
	}
	if _, err := os.Stat(filepath.Join(dbDir(cfg.DataDir), "state.db")); err == nil {
		return nil, fmt.Errorf("this server has a cluster of its own in %s: to give that up, remove %s; to keep it, start this server with --cluster-init and join the others to it",
			dbDir(cfg.DataDir), filepath.Join(cfg.DataDir, "server"))
	}
	client, err := newClient(cfg, log)
	if err != nil {
		return nil, err
	}
	data, err := client.Material(ctx)
	if err != nil {
		return nil, err
	}
	var m material
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("understand the other server: %w: all servers must be of about the same version", err)
	}
	if err := m.differs(cfg); err != nil {
		return nil, err
	}
	for _, must := range certs.NewServerPaths(cfg.DataDir).Shared() {
		if rel, err := filepath.Rel(cfg.DataDir, must); err != nil || m.Files[rel] == nil {
			return nil, fmt.Errorf("the other server did not send %s: all servers must be of about the same version", rel)
		}
	}
	return nothing, m.put(cfg.DataDir)
}

// newClient asks the servers of the settings.
func newClient(cfg config.Server, log *slog.Logger) (*join.Client, error) {
	text := cfg.Token
	if text == "" { // of an earlier attempt
		stored, err := os.ReadFile(filepath.Join(cfg.DataDir, "server", "token"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read token: %w", err)
		}
		text = string(stored)
	}
	return join.NewClient(join.ClientConfig{
		DataDir: cfg.DataDir, Servers: func() []string { return cfg.Servers }, Token: text, AsServer: true, NodeName: cfg.NodeName, NodeIPs: cfg.StdNodeIPs(), Log: log,
	})
}

// Several is what this server tells others that join; nil when its datastore is not for several.
func Several(cfg config.Server, member *etcd.Member) *join.Several {
	if member == nil {
		return nil
	}
	return &join.Several{Material: func() ([]byte, error) { return Material(cfg) }, Admit: member.Admit, Busy: etcd.ErrBusy}
}
