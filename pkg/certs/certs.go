// Package certs makes, keeps and renews every certificate and kubeconfig file of a site.
//
// The authorities, the service account key and the control plane's leaves live under <data>/server/tls; what a node holds
// lives under <data>/agent. Node keys are made on the node and leave it only as a signing request. Everything is written with
// temp file, fsync and rename, in an order that lets an interrupted first start be repeated.
// It is a foundation: server, agent and features may import it; it imports only the standard library and leaves.
package certs

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lifetimes of what this package issues, and the slack given to clocks that are behind.
const (
	// AuthorityLife is how long a certificate authority is valid.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long every other certificate is valid; it is renewed at two thirds of it.
	LeafLife = 365 * 24 * time.Hour
	// backdate lets a machine whose clock is a little behind accept a fresh certificate.
	backdate = time.Hour
	// authorityWarning is how long before an authority's end the operator is told about it.
	authorityWarning = 365 * 24 * time.Hour
)

// KeyPair names the files of one certificate and its private key.
type KeyPair struct {
	Cert string
	Key  string
}

// ServerPaths names every file that EnsureServer keeps.
type ServerPaths struct {
	ServerCA        KeyPair // signs serving certificates
	ClientCA        KeyPair // signs client certificates
	RequestHeaderCA KeyPair // signs the aggregator's front proxy certificate
	PeerCA          KeyPair // signs the datastore's members, where there are several servers; nothing else trusts it

	ServiceKey string // ECDSA key that signs service account tokens; the apiserver and controller-manager read it

	ServingAPIServer KeyPair // the apiserver's own serving certificate
	KubeletClient    KeyPair // the apiserver as a client of kubelets
	AuthProxy        KeyPair // the apiserver as a client of aggregated API servers
	Admin            KeyPair
	Controller       KeyPair
	Scheduler        KeyPair
	Supervisor       KeyPair
	Peer             KeyPair // this server's member of the datastore

	AdminKubeconfig      string // refers to the Admin files; the user's copy (WriteKubeconfig) embeds them
	ControllerKubeconfig string
	SchedulerKubeconfig  string
	SupervisorKubeconfig string
}

// NewServerPaths says where the files of a server with this data directory are, whether they exist or not.
func NewServerPaths(dataDir string) ServerPaths {
	tls := filepath.Join(dataDir, "server", "tls")
	cred := filepath.Join(dataDir, "server", "cred")
	return ServerPaths{
		ServerCA:             pairIn(tls, "server-ca"),
		ClientCA:             pairIn(tls, "client-ca"),
		RequestHeaderCA:      pairIn(tls, "request-header-ca"),
		PeerCA:               pairIn(tls, "peer-ca"),
		Peer:                 pairIn(tls, "peer"),
		ServiceKey:           filepath.Join(tls, "service.key"),
		ServingAPIServer:     pairIn(tls, "serving-kube-apiserver"),
		KubeletClient:        pairIn(tls, "client-kube-apiserver"),
		AuthProxy:            pairIn(tls, "client-auth-proxy"),
		Admin:                pairIn(tls, "client-admin"),
		Controller:           pairIn(tls, "client-controller"),
		Scheduler:            pairIn(tls, "client-scheduler"),
		Supervisor:           pairIn(tls, "client-supervisor"),
		AdminKubeconfig:      filepath.Join(cred, "admin.kubeconfig"),
		ControllerKubeconfig: filepath.Join(cred, "controller.kubeconfig"),
		SchedulerKubeconfig:  filepath.Join(cred, "scheduler.kubeconfig"),
		SupervisorKubeconfig: filepath.Join(cred, "supervisor.kubeconfig"),
	}
}

// Shared are the files that all servers of a cluster must have alike; the last two only where the datastore has members.
func (p ServerPaths) Shared() []string {
	return []string{p.ServerCA.Cert, p.ServerCA.Key, p.ClientCA.Cert, p.ClientCA.Key, p.RequestHeaderCA.Cert, p.RequestHeaderCA.Key, p.ServiceKey,
		p.PeerCA.Cert, p.PeerCA.Key}
}

// NodePaths names every file that EnsureNode keeps.
type NodePaths struct {
	ServerCA string // bundle that the node trusts for servers
	ClientCA string // bundle that the kubelet trusts for its clients

	ClientKubelet  KeyPair
	ServingKubelet KeyPair
	KubeProxy      KeyPair
	Controller     KeyPair

	KubeletKubeconfig    string
	KubeProxyKubeconfig  string
	ControllerKubeconfig string
}

// NewNodePaths says where the files of a node with this data directory are, whether they exist or not.
func NewNodePaths(dataDir string) NodePaths {
	dir := filepath.Join(dataDir, "agent")
	return NodePaths{
		ServerCA:             filepath.Join(dir, "server-ca.crt"),
		ClientCA:             filepath.Join(dir, "client-ca.crt"),
		ClientKubelet:        pairIn(dir, string(KindClientKubelet)),
		ServingKubelet:       pairIn(dir, string(KindServingKubelet)),
		KubeProxy:            pairIn(dir, string(KindKubeProxy)),
		Controller:           pairIn(dir, string(KindController)),
		KubeletKubeconfig:    filepath.Join(dir, "kubelet.kubeconfig"),
		KubeProxyKubeconfig:  filepath.Join(dir, "kubeproxy.kubeconfig"),
		ControllerKubeconfig: filepath.Join(dir, "kedgecontroller.kubeconfig"),
	}
}

func pairIn(dir, name string) KeyPair {
	return KeyPair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// Info describes one certificate on disk, for `kedge certificate`.
type Info struct {
	Name      string   // file name without .crt
	Path      string   // certificate file
	Authority bool     // a CA; CAs are never renewed by themselves
	Subject   string   // distinguished name
	SANs      []string // DNS names, then IP addresses
	NotBefore time.Time
	NotAfter  time.Time
	RenewAt   time.Time // when a leaf becomes due; zero for an authority
	Problem   string    // why the file is unusable, or empty
}

// List reads every certificate under the data directory, servers first, each in name order. A file that cannot be read
// is listed with its Problem; only an unreadable directory is an error. A directory that does not exist is empty.
func List(dataDir string) ([]Info, error) {
	var infos []Info
	for _, dir := range []string{filepath.Join(dataDir, "server", "tls"), filepath.Join(dataDir, "agent")} {
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list certificates: %w", err)
		}
		for _, entry := range entries {
			if name := entry.Name(); filepath.Ext(name) == ".crt" && name[0] != '.' {
				infos = append(infos, describe(filepath.Join(dir, name)))
			}
		}
	}
	return infos, nil
}

func describe(path string) Info {
	base := filepath.Base(path)
	info := Info{Name: base[:len(base)-len(".crt")], Path: path}
	chain, err := readCerts(path)
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	cert := chain[0]
	info.Authority = cert.IsCA
	info.Subject = cert.Subject.String()
	info.SANs = slices.Concat(cert.DNSNames, ipStrings(cert.IPAddresses))
	info.NotBefore, info.NotAfter = cert.NotBefore, cert.NotAfter
	if !cert.IsCA {
		info.RenewAt = renewAt(cert)
	}
	return info
}

// renewAt is the moment at which two thirds of the certificate's life have passed.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

// due says whether a leaf must be renewed now. A leaf from the future (issued while the clock was wrong) is due too.
func due(now time.Time, leaf *x509.Certificate) bool {
	return now.Before(leaf.NotBefore) || !now.Before(renewAt(leaf))
}
