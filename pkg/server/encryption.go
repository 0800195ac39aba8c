package server

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/server/cluster"
	"github.com/kedge-io/kedge/pkg/server/encryption"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// EncryptionDesk and EncryptionReport are what commands about the encryption of Secrets work with.
type (
	EncryptionDesk   = encryption.Desk
	EncryptionReport = encryption.Report
)

// NewEncryptionDesk reaches the running server of this machine.
func NewEncryptionDesk(cfg config.Server) (*EncryptionDesk, error) {
	paths := certs.NewServerPaths(cfg.DataDir)
	endpoint := cfg.DatastoreEndpoint
	if endpoint == "" {
		endpoint = "unix://" + cluster.Socket
		conn, err := net.DialTimeout("unix", cluster.Socket, time.Second)
		if errors.Is(err, fs.ErrPermission) {
			return nil, errors.New("only root may do this: use sudo")
		}
		if err != nil {
			return nil, errors.New("no server runs on this machine: start kedge first, or run this command on a server")
		}
		_ = conn.Close() // it was only to see whether anybody answers
	}
	c, err := encryptionConfig(cfg, paths, endpoint, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return encryption.NewDesk(c)
}

// encryptionConfig is the encryption of Secrets as cfg asks for it.
func encryptionConfig(cfg config.Server, paths certs.ServerPaths, endpoint string, log *slog.Logger) (encryption.Config, error) {
	authority, err := os.ReadFile(paths.ServerCA.Key)
	if errors.Is(err, fs.ErrPermission) {
		return encryption.Config{}, errors.New("only root may do this: use sudo")
	}
	if err != nil {
		return encryption.Config{}, fmt.Errorf("no server has run on this machine with the data directory %s: %w", cfg.DataDir, err)
	}
	store := encryption.Datastore{
		Remote: etcd.Remote{Endpoints: endpoint, CAFile: cfg.DatastoreCAFile, CertFile: cfg.DatastoreCertFile, KeyFile: cfg.DatastoreKeyFile},
	}
	for _, a := range cfg.KubeAPIServerArgs {
		if prefix, ok := strings.CutPrefix(strings.TrimLeft(a, "-"), "etcd-prefix="); ok {
			store.Prefix = prefix
		}
	}
	return encryption.Config{
		File: encryption.Path(cfg.DataDir), Wanted: cfg.SecretsEncryption, Type: cfg.SecretsEncryptionProvider, Datastore: store, Authority: authority,
		Kubeconfig: paths.SupervisorKubeconfig, Log: log, Alone: cfg.DatastoreEndpoint == "" && !cluster.HasMember(cfg), Members: cluster.HasMember(cfg),
	}, nil
}

// openEncryption prepares the keys for Secrets.
func (s *Server) openEncryption() error {
	c, err := encryptionConfig(s.cfg, s.certs.ServerPaths, s.plane.EtcdEndpoint, s.log)
	if err != nil {
		return err
	}
	s.secrets = encryption.New(c)
	return nil
}

// encryptionParts is who takes changes of the keys forward. A server that is alone has none until encryption is on, which takes a restart.
func (s *Server) encryptionParts() ([]supervisor.Component, error) {
	_, err := os.Stat(encryption.Path(s.cfg.DataDir))
	if s.single && !s.cfg.SecretsEncryption && err != nil {
		return nil, nil
	}
	k, err := s.secrets.Keeper()
	if err != nil {
		return nil, fmt.Errorf("prepare secrets encryption: %w", err)
	}
	return []supervisor.Component{k}, nil
}
