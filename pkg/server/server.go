// Package server builds the control plane of a site: datastore, API server, controllers, add-ons.
// Only cli imports it.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/kedge-io/kedge/manifests"
	"github.com/kedge-io/kedge/pkg/addons"
	"github.com/kedge-io/kedge/pkg/autonomy/health"
	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/controlplane"
	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/grid"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/loadbalancer"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/server/cluster"
	"github.com/kedge-io/kedge/pkg/server/encryption"
	"github.com/kedge-io/kedge/pkg/server/self"
	"github.com/kedge-io/kedge/pkg/storage"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// Server is the control plane of a site, prepared and not started.
type Server struct {
	cfg   config.Server
	certs *certs.Server
	log   *slog.Logger
	// store is nil when the datastore is elsewhere; single says that no other server can share it.
	store    supervisor.Component
	single   bool
	recovery func() *datastore.Recovery // of SQLite; nil for others
	member   *etcd.Member               // the store where it is an etcd; nil for others
	led      []func()                   // called each time when the controllers of several servers are ready here
	plane    controlplane.Config
	gate     *gate // from APIServer on
	secrets  *encryption.Keys

	health *health.Controller // the same, unless it is disabled
	grid   *grid.Grid         // the same
	rules  *rules.Server      // the same
}

// New makes or loads the certificates, on a server that joins others those of them, and prepares the datastore. cfg must have its node name,
// addresses and derived settings filled in.
func New(ctx context.Context, cfg config.Server, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log}
	prepared, err := cluster.Prepare(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if s.certs, err = certs.EnsureServer(s.certsConfig()); err != nil {
		return nil, fmt.Errorf("prepare certificates: %w", err)
	}
	if err := s.ensureTokens(); err != nil {
		return nil, err
	}
	if err := prepared(ctx); err != nil {
		return nil, err
	}
	endpoint, err := s.openStore()
	if err != nil {
		return nil, fmt.Errorf("prepare datastore: %w", err)
	}
	s.plane = s.planeConfig(endpoint)
	return s, s.openEncryption()
}

// ensureTokens writes the token files.
func (s *Server) ensureTokens() error {
	bundle, _, err := s.certs.CABundles()
	if err != nil {
		return err
	}
	token, agentToken := cluster.TokenSettings(s.cfg)
	return join.NewTokenFiles(s.cfg.DataDir).Ensure(bundle, token, agentToken)
}

// Reset drops all other servers from the datastore of this one, and ends.
func Reset(ctx context.Context, cfg config.Server, log *slog.Logger) error {
	if cfg.ClusterInit = false; !cluster.HasMember(cfg) {
		return fmt.Errorf("--cluster-reset: this server has no etcd in %s: nothing to reset", cfg.DataDir)
	}
	s, err := New(ctx, cfg, log)
	if err != nil {
		return err
	}
	return cluster.Reset(ctx, s.member)
}

// RestoreSnapshot replaces the data of this server, while kedge is stopped, with those of a snapshot.
func RestoreSnapshot(cfg config.Server, name string, files bool) (datastore.Snapshot, error) {
	if cluster.HasMember(cfg) {
		return cluster.Restore(cfg, name, files)
	}
	return datastore.RestoreSnapshot(StoreConfig(cfg.DataDir), name, files)
}

// HasOthers says whether the server with these settings may be one of several, and ShareTokens gives its tokens to the others.
func HasOthers(cfg config.Server) (bool, error) { return cluster.HasOthers(cfg) }

// ShareTokens gives the tokens of this server to the others of its cluster.
func ShareTokens(ctx context.Context, cfg config.Server) error { return cluster.ShareTokens(ctx, cfg) }

// Several reports whether other servers may share the datastore, and OwnURL is the address by which they know this one.
func (s *Server) Several() bool { return !s.single }

// OwnURL is the address of this server in the endpoints of the Service kubernetes.
func (s *Server) OwnURL() string {
	return "https://" + net.JoinHostPort(s.cfg.AdvertiseAddress.String(), fmt.Sprint(s.cfg.Port))
}

// WhenLed has do called each time when the controllers that run on one of several servers are ready on this one.
func (s *Server) WhenLed(do func()) { s.led = append(s.led, do) }

// openStore prepares the datastore and returns where the API server finds it.
func (s *Server) openStore() (endpoint string, err error) {
	switch {
	case s.cfg.DatastoreEndpoint != "":
		return s.cfg.DatastoreEndpoint, nil
	case cluster.HasMember(s.cfg):
		m, err := cluster.NewMember(s.cfg, s.certs.ServerPaths, s.log)
		if err != nil {
			return "", err
		}
		s.store, s.member = m, m
		return m.Endpoint(), nil
	}
	cfg, err := s.storeConfig()
	if err != nil {
		return "", err
	}
	store, err := datastore.New(cfg)
	if err != nil {
		return "", err
	}
	s.store, s.single, s.recovery = store, true, store.Recovery
	return store.Endpoint(), nil
}

// StoreConfig is the datastore of a server, also for commands beside a running one. With each snapshot it keeps what else a restored
// site needs: its authorities, keys and tokens.
func StoreConfig(dataDir string) datastore.Config {
	return datastore.Config{
		Dir: filepath.Join(dataDir, "server", "db"), Socket: cluster.Socket, SnapshotEngine: cluster.SnapshotEngine(dataDir), SnapshotFiles: cluster.SnapshotFiles(dataDir),
	}
}

func (s *Server) storeConfig() (cfg datastore.Config, err error) {
	cfg = StoreConfig(s.cfg.DataDir)
	cfg.Log, cfg.SnapshotKeep = s.log, s.cfg.SnapshotRetention
	cfg.SnapshotInterval, cfg.SnapshotTimes, err = cluster.SnapshotTimes(s.cfg)
	return cfg, err
}

// Certs are the certificates of the control plane.
func (s *Server) Certs() *certs.Server { return s.certs }

// URL is where parts on this machine reach the API.
func (s *Server) URL() string {
	return "https://" + net.JoinHostPort("127.0.0.1", fmt.Sprint(s.cfg.Port))
}

// Datastore is the first part to start, or nil when the datastore is elsewhere.
func (s *Server) Datastore() supervisor.Component { return s.store }

// APIServer is the second. It shares its port with what agents need; settings is what joining nodes are told, as JSON.
func (s *Server) APIServer(settings func() ([]byte, error)) (supervisor.Component, error) {
	api, err := controlplane.NewAPIServer(s.plane)
	if err != nil {
		return nil, err
	}
	if s.gate, err = s.openGate(api, settings); err != nil {
		return nil, fmt.Errorf("prepare joining: %w", err)
	}
	if err := s.openRules(); err != nil {
		return nil, err
	}
	if api.Kinds, err = s.kinds(); err != nil {
		return nil, fmt.Errorf("collect kinds: %w", err)
	}
	if api.Local, err = s.localAPIs(); err != nil {
		return nil, err
	}
	if err := s.keepPods(api); err != nil {
		return nil, err
	}
	api.Encryption = s.secrets.Prepare
	return api, nil
}

// Controllers need the API server; they may start together. Of several servers, one runs those that act for the cluster.
func (s *Server) Controllers() ([]supervisor.Component, error) {
	own, err := s.ownParts()
	if err != nil {
		return nil, err
	}
	acting, err := s.actingParts()
	if err != nil {
		return nil, err
	}
	if s.single {
		return append(own, acting...), nil
	}
	if s.member != nil {
		w, err := cluster.NewWarden(s.certs.SupervisorKubeconfig, s.member, s.log)
		if err != nil {
			return nil, err
		}
		acting = append(acting, w)
	}
	times, err := cluster.LeaderTimes(s.cfg.KubeControllerManagerArgs)
	if err != nil {
		return nil, err
	}
	leader, err := cluster.NewLeader(cluster.LeaderConfig{
		Kubeconfig: s.certs.SupervisorKubeconfig, Node: s.cfg.NodeName, Times: times, Parts: acting, Log: s.log,
		Led: func() {
			for _, do := range s.led {
				do()
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare controllers: %w", err)
	}
	return append(own, cluster.NewTokenKeeper(s.cfg, s.log), leader), nil
}

// ownParts are those that every server has for itself.
func (s *Server) ownParts() ([]supervisor.Component, error) {
	beats, err := s.gate.beats.component(s.certs.SupervisorKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("prepare heartbeats: %w", err)
	}
	parts := []supervisor.Component{s.gate.tunnel, beats}
	if s.health != nil {
		parts = append(parts, s.health)
	}
	if s.localNode() != "" {
		role, err := self.NewRole(s.certs.SupervisorKubeconfig, s.cfg.NodeName)
		if err != nil {
			return nil, err
		}
		parts = append(parts, s.keepName(), role)
	}
	if s.recovery != nil {
		report, err := self.NewRecoveryReport(s.certs.SupervisorKubeconfig, s.cfg.NodeName, s.recovery, s.log)
		if err != nil {
			return nil, err
		}
		parts = append(parts, report)
	}
	return s.withIngress(parts)
}

// actingParts are those that one server has for all.
func (s *Server) actingParts() ([]supervisor.Component, error) {
	parts, err := s.directories()
	if err != nil {
		return nil, err
	}
	if !s.cfg.DisableControllerManager {
		m, err := controlplane.NewControllerManager(s.plane)
		if err != nil {
			return nil, err
		}
		parts = append(parts, m)
	}
	if !s.cfg.DisableScheduler {
		c, err := controlplane.NewScheduler(s.plane)
		if err != nil {
			return nil, err
		}
		parts = append(parts, c)
	}
	if !s.cfg.Disabled("local-storage") {
		c, err := storage.New(storage.Config{Kubeconfig: s.certs.SupervisorKubeconfig, Paths: []string{s.cfg.DefaultLocalStoragePath}, Log: s.log})
		if err != nil {
			return nil, fmt.Errorf("prepare storage: %w", err)
		}
		parts = append(parts, c)
	}
	if !s.cfg.Disabled("servicelb") {
		const ssh, kubelet = 22, 10250
		c, err := loadbalancer.New(loadbalancer.Config{
			Kubeconfig: s.certs.SupervisorKubeconfig, ReservedPorts: []int32{ssh, kubelet, int32(s.cfg.Port)}, Log: s.log,
		})
		if err != nil {
			return nil, fmt.Errorf("prepare load balancer: %w", err)
		}
		parts = append(parts, c)
	}
	a, err := s.addonParts()
	if err != nil {
		return nil, err
	}
	e, err := s.encryptionParts()
	return slices.Concat(parts, a, e), err
}

// addons applies what lies in the manifests folder.
func (s *Server) addons() (supervisor.Component, error) {
	dns := make([]net.IP, len(s.cfg.ClusterDNS))
	for i, ip := range s.cfg.ClusterDNS {
		dns[i] = ip.AsSlice()
	}
	variables := manifests.Variables{ClusterDNS: dns, ClusterDomain: s.cfg.ClusterDomain, DataDir: s.cfg.DataDir, SystemRegistry: s.cfg.SystemDefaultRegistry}
	return addons.New(addons.Config{
		Dir: filepath.Join(s.cfg.DataDir, "server", "manifests"), Packaged: manifests.FS(), Variables: variables.Map(),
		Disabled: s.cfg.DisabledAddons(), Server: s.cfg.NodeName, Kubeconfig: s.certs.SupervisorKubeconfig, Log: s.log,
	})
}

func (s *Server) certsConfig() certs.ServerConfig {
	c := s.cfg
	out := certs.ServerConfig{
		DataDir: c.DataDir, APIServerURL: s.URL(), ClusterDomain: c.ClusterDomain, NodeName: s.localNode(),
		Kubeconfig: certs.UserKubeconfig{Path: c.WriteKubeconfig, Mode: c.WriteKubeconfigMode, Group: c.WriteKubeconfigGroup},
	}
	if cluster.HasMember(c) {
		out.PeerIPs = append(c.StdNodeIPs(), net.IPv4(127, 0, 0, 1))
	}
	for _, p := range c.ServiceCIDRs {
		out.ServiceIPs = append(out.ServiceIPs, p.Masked().Addr().Next().AsSlice())
	}
	for _, ip := range slices.Concat([]netip.Addr{c.AdvertiseAddress}, c.NodeIPs, c.NodeExternalIPs) {
		out.ServingIPs = append(out.ServingIPs, ip.AsSlice())
	}
	if host, err := os.Hostname(); err == nil {
		out.ServingNames = append(out.ServingNames, host)
	}
	for _, san := range c.TLSSANs {
		if ip := net.ParseIP(san); ip != nil {
			out.ServingIPs = append(out.ServingIPs, ip)
		} else {
			out.ServingNames = append(out.ServingNames, san)
		}
	}
	return out
}

func (s *Server) planeConfig(endpoint string) controlplane.Config {
	c, p := s.cfg, s.certs.ServerPaths
	return controlplane.Config{
		Files: controlplane.Files{
			ServerCA: p.ServerCA.Cert, ServerCAKey: p.ServerCA.Key, ClientCA: p.ClientCA.Cert, ClientCAKey: p.ClientCA.Key,
			RequestHeaderCA: p.RequestHeaderCA.Cert, ServingCert: p.ServingAPIServer.Cert, ServingKey: p.ServingAPIServer.Key,
			KubeletCert: p.KubeletClient.Cert, KubeletKey: p.KubeletClient.Key,
			ProxyClientCert: p.AuthProxy.Cert, ProxyClientKey: p.AuthProxy.Key, ServiceKey: p.ServiceKey,
			AdminKubeconfig: p.AdminKubeconfig, ControllerKubeconfig: p.ControllerKubeconfig, SchedulerKubeconfig: p.SchedulerKubeconfig,
		},
		EtcdEndpoint: endpoint, EtcdCAFile: c.DatastoreCAFile, EtcdCertFile: c.DatastoreCertFile, EtcdKeyFile: c.DatastoreKeyFile, SingleServer: s.single,
		BindAddress: c.BindAddress.String(), Port: c.Port,
		AdvertiseAddress: c.AdvertiseAddress,
		ClusterCIDRs:     c.ClusterCIDRs, ServiceCIDRs: c.ServiceCIDRs, NodePortRange: c.NodePortRange, ClusterDomain: c.ClusterDomain,
		APIServerArgs: c.KubeAPIServerArgs, ControllerManagerArgs: c.KubeControllerManagerArgs, SchedulerArgs: c.KubeSchedulerArgs,
	}
}
