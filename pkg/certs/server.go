package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Identities of the control plane. The apiserver is a plain user towards kubelets: the packaged RBAC manifest binds
// UserAPIServer to the role system:kubelet-api-admin, so a stolen key of that client is worth less than an admin's.
const (
	UserAPIServer   = "system:kube-apiserver"
	UserSupervisor  = "system:kedge-supervisor"
	UserAdmin       = "system:admin"
	GroupMasters    = "system:masters"
	UserAuthProxy   = "system:auth-proxy"
	userControllers = "system:kube-controller-manager"
	userScheduler   = "system:kube-scheduler"
)

// ServerConfig is what EnsureServer needs to know.
type ServerConfig struct {
	DataDir       string           // for example /var/lib/kedge
	APIServerURL  string           // what local clients dial, for example https://127.0.0.1:6443
	ClusterDomain string           // DNS domain of the cluster; empty means cluster.local
	ServiceIPs    []net.IP         // addresses of the Service kubernetes, one per IP family
	ServingNames  []string         // host name and --tls-san names
	ServingIPs    []net.IP         // node addresses and --tls-san addresses
	NodeName      string           // the node on this machine, the only one that may carry ServingIPs; may be empty
	PeerIPs       []net.IP         // addresses of this server's member of the datastore; none where that has no members
	Kubeconfig    UserKubeconfig   // the operator's copy
	Clock         func() time.Time // nil means time.Now
}

// Server holds the authorities and the control plane's certificates of this machine. It is safe for concurrent use.
type Server struct {
	ServerPaths

	mu  sync.Mutex // one writer of the files, and guards cfg
	cfg ServerConfig

	serverCA, clientCA, requestHeaderCA *authority
	peerCA                              *authority // nil without members of the datastore
}

// EnsureServer loads the server's certificates, making or re-issuing what is missing, damaged, due or out of date.
// An authority or the service account key is made only for a data directory that was never used; when a used one has lost
// or damaged them, the error names the file and the way back.
func EnsureServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{ServerPaths: NewServerPaths(cfg.DataDir), cfg: cfg}
	for _, dir := range []string{filepath.Dir(s.ServiceKey), filepath.Dir(s.AdminKubeconfig)} {
		if err := makeDir(dir); err != nil {
			return nil, fmt.Errorf("prepare certificate directory: %w", err)
		}
	}
	if err := s.ensureAuthorities(); err != nil {
		return nil, err
	}
	if _, err := s.Renew(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *ServerConfig) complete() error {
	if c.DataDir == "" {
		return errors.New("certificates: data directory is empty: set data-dir")
	}
	if u, err := url.Parse(c.APIServerURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("certificates: apiserver URL %q must look like https://127.0.0.1:6443", c.APIServerURL)
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return nil
}

// ensureAuthorities makes all authorities and the service account key before the first leaf, so that a leaf proves that
// they were complete once.
func (s *Server) ensureAuthorities() error {
	now := s.cfg.Clock()
	used, err := s.inUse()
	if err != nil {
		return err
	}
	for _, slot := range []struct {
		pair KeyPair
		name string
		into **authority
	}{
		{s.ServerCA, "server-ca", &s.serverCA},
		{s.ClientCA, "client-ca", &s.clientCA},
		{s.RequestHeaderCA, "request-header-ca", &s.requestHeaderCA},
	} {
		if *slot.into, err = ensureAuthority(slot.pair, slot.name, used, now); err != nil {
			return err
		}
	}
	if len(s.cfg.PeerIPs) > 0 { // a server that gets members when it is used already makes this one then
		started := exists(filepath.Join(s.cfg.DataDir, "server", "db", "etcd", "member"))
		if s.peerCA, err = ensureAuthority(s.PeerCA, "peer-ca", started, now); err != nil {
			return err
		}
	}
	return ensureServiceKey(s.ServiceKey, used)
}

// inUse says whether this data directory has served a cluster: it has a database, or a certificate that an authority signed.
func (s *Server) inUse() (bool, error) {
	entries, err := os.ReadDir(filepath.Join(s.cfg.DataDir, "server", "db"))
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("look for a database: %w", err)
	}
	if len(entries) > 0 {
		return true, nil
	}
	return slices.ContainsFunc(s.leaves(), func(l serverLeaf) bool { return exists(l.pair.Cert) }), nil
}

func ensureAuthority(pair KeyPair, name string, used bool, now time.Time) (*authority, error) {
	hasCert, hasKey := exists(pair.Cert), exists(pair.Key)
	if used || hasCert {
		ca, err := loadAuthority(pair, now)
		if err != nil {
			return nil, damaged(err)
		}
		return ca, errors.Join(os.Chmod(pair.Key, keyMode), os.Chmod(pair.Cert, certMode))
	}
	// The key is written first: a key alone is an interrupted first start, and nobody has seen its certificate yet.
	if hasKey {
		if err := os.Remove(pair.Key); err != nil {
			return nil, err
		}
	}
	cert, key, err := newAuthority(name, now)
	if err != nil {
		return nil, err
	}
	if _, err := writeFile(pair.Key, key, keyMode); err != nil {
		return nil, err
	}
	if _, err := writeFile(pair.Cert, cert, certMode); err != nil {
		return nil, err
	}
	return loadAuthority(pair, now)
}

func ensureServiceKey(path string, used bool) error {
	if !used && !exists(path) {
		_, err := ensureKey(path)
		return err
	}
	if _, err := readKey(path); err != nil {
		return damaged(err)
	}
	return os.Chmod(path, keyMode)
}

func damaged(err error) error {
	return fmt.Errorf("certificate authority cannot be used: %w: restore server/tls from a backup, or start with an empty data directory", err)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

type serverLeaf struct {
	pair       KeyPair
	profile    profile
	ca         *authority
	kubeconfig string // empty for none
}

// leaves lists every certificate that the server keeps for itself.
func (s *Server) leaves() []serverLeaf {
	client := func(user string, groups ...string) profile {
		return profile{commonName: user, groups: groups, usage: x509.ExtKeyUsageClientAuth}
	}
	leaves := []serverLeaf{
		{s.ServingAPIServer, s.cfg.servingProfile(), s.serverCA, ""},
		{s.KubeletClient, client(UserAPIServer), s.clientCA, ""},
		{s.AuthProxy, client(UserAuthProxy), s.requestHeaderCA, ""},
		{s.Admin, client(UserAdmin, GroupMasters), s.clientCA, s.AdminKubeconfig},
		{s.Controller, client(userControllers), s.clientCA, s.ControllerKubeconfig},
		{s.Scheduler, client(userScheduler), s.clientCA, s.SchedulerKubeconfig},
		{s.Supervisor, client(UserSupervisor, GroupMasters), s.clientCA, s.SupervisorKubeconfig},
	}
	if len(s.cfg.PeerIPs) > 0 {
		leaves = append(leaves, serverLeaf{s.Peer, profile{commonName: "kedge-peer", names: []string{"localhost"}, ips: uniqueIPs(s.cfg.PeerIPs), peer: true}, s.peerCA, ""})
	}
	return leaves
}

func (c *ServerConfig) servingProfile() profile {
	names := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + c.ClusterDomain, "localhost"}, c.ServingNames...)
	ips := slices.Concat([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, c.ServiceIPs, c.ServingIPs)
	return profile{commonName: "kube-apiserver", names: sortedUnique(names), ips: uniqueIPs(ips), usage: x509.ExtKeyUsageServerAuth}
}

func uniqueIPs(ips []net.IP) []net.IP {
	var out []net.IP
	for _, text := range sortedUnique(ipStrings(ips)) {
		out = append(out, net.ParseIP(text))
	}
	return out
}

// Renew re-issues what is due or no longer right, in place, rewrites the kubeconfigs that changed, and returns the names of
// the certificate files that it wrote.
func (s *Server) Renew(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock()
	var changed []string
	for _, leaf := range s.leaves() {
		wrote, err := ensureLeaf(leaf.pair, leaf.profile, leaf.ca, now)
		if err != nil {
			return changed, fmt.Errorf("certificate %s: %w", leaf.pair.Cert, err)
		}
		if wrote {
			changed = append(changed, filepath.Base(leaf.pair.Cert))
		}
		if leaf.kubeconfig == "" {
			continue
		}
		if _, err := writeReferringKubeconfig(leaf.kubeconfig, s.cfg.APIServerURL, s.ServerCA.Cert, leaf.pair); err != nil {
			return changed, fmt.Errorf("kubeconfig %s: %w", leaf.kubeconfig, err)
		}
	}
	if _, err := s.cfg.Kubeconfig.write(s.cfg.APIServerURL, s.ServerCA.Cert, s.Admin); err != nil {
		return changed, fmt.Errorf("kubeconfig %s: %w", s.cfg.Kubeconfig.Path, err)
	}
	return changed, nil
}

// SetAddresses replaces the names and addresses that the apiserver's certificate carries; the next Renew issues it.
func (s *Server) SetAddresses(names []string, ips []net.IP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.ServingNames, s.cfg.ServingIPs = slices.Clone(names), slices.Clone(ips)
}

// CABundles returns the PEM bundles that nodes need: what they trust for servers, and for clients of their kubelet.
func (s *Server) CABundles() (serverCA, clientCA []byte, err error) {
	if serverCA, err = os.ReadFile(s.ServerCA.Cert); err != nil {
		return nil, nil, fmt.Errorf("read server authority: %w", err)
	}
	if clientCA, err = os.ReadFile(s.ClientCA.Cert); err != nil {
		return nil, nil, fmt.Errorf("read client authority: %w", err)
	}
	return serverCA, clientCA, nil
}

// files lists the certificates that the Renewer watches.
func (s *Server) files() []string {
	out := []string{s.ServerCA.Cert, s.ClientCA.Cert, s.RequestHeaderCA.Cert}
	for _, leaf := range s.leaves() {
		out = append(out, leaf.pair.Cert)
	}
	return out
}
