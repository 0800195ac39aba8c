package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"
)

// Signer turns a node's signing request into a certificate. On a server it is (*Server).NodeSigner; a node that joined has
// one that asks over the network.
type Signer interface {
	Sign(ctx context.Context, csrPEM []byte, kind Kind) (certPEM []byte, err error)
}

// NodeSigner returns the signer for one node whose identity the caller has authenticated. It fails when the identity would
// let the node pose as the apiserver.
func (s *Server) NodeSigner(node NodeIdentity) (Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkNode(node, s.cfg.servingProfile(), s.cfg.NodeName); err != nil {
		return nil, err
	}
	return &localSigner{server: s, node: node}, nil
}

type localSigner struct {
	server *Server
	node   NodeIdentity
}

func (l *localSigner) Sign(_ context.Context, csrPEM []byte, kind Kind) ([]byte, error) {
	p, err := nodeProfile(kind, l.node)
	if err != nil {
		return nil, err
	}
	public, err := parseRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	ca := l.server.clientCA
	if kind == KindServingKubelet {
		ca = l.server.serverCA
	}
	return ca.issue(p, public, l.server.cfg.Clock())
}

// NodeConfig is what EnsureNode needs to know.
type NodeConfig struct {
	DataDir   string           // for example /var/lib/kedge
	NodeName  string           // Kubernetes node name
	NodeIPs   []net.IP         // addresses that the kubelet's certificate carries
	ServerURL string           // where the node's clients find the API, for example https://127.0.0.1:6443
	APICA     string           // file with whom the node's clients trust at ServerURL; empty means the servers' authority
	ServerCA  []byte           // PEM bundle; empty keeps the stored one, for a start without the server
	ClientCA  []byte           // PEM bundle; empty keeps the stored one
	Signer    Signer           // gets the certificates
	Clock     func() time.Time // nil means time.Now
}

// Node holds the certificates of this node. It is safe for concurrent use.
type Node struct {
	NodePaths

	mu  sync.Mutex // one writer of the files
	cfg NodeConfig
}

// EnsureNode loads the node's certificates, and has the signer issue what is missing, damaged, due or out of date. When the
// signer fails, certificates that still work stay in use: a node starts without its server.
func EnsureNode(ctx context.Context, cfg NodeConfig) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{NodePaths: NewNodePaths(cfg.DataDir), cfg: cfg}
	if err := makeDir(filepath.Dir(n.ServerCA)); err != nil {
		return nil, fmt.Errorf("prepare certificate directory: %w", err)
	}
	for _, bundle := range []struct {
		path string
		data []byte
	}{{n.ServerCA, cfg.ServerCA}, {n.ClientCA, cfg.ClientCA}} {
		if err := keepBundle(bundle.path, bundle.data); err != nil {
			return nil, err
		}
	}
	apiCA := cfg.APICA
	if apiCA == "" {
		apiCA = n.ServerCA
	}
	for path, pair := range map[string]KeyPair{
		n.KubeletKubeconfig: n.ClientKubelet, n.KubeProxyKubeconfig: n.KubeProxy, n.ControllerKubeconfig: n.Controller,
	} {
		if _, err := writeReferringKubeconfig(path, cfg.ServerURL, apiCA, pair); err != nil {
			return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
		}
	}
	if _, err := n.Renew(ctx); err != nil {
		var stale *staleError
		if !errors.As(err, &stale) {
			return nil, err
		}
	}
	return n, nil
}

func (c *NodeConfig) complete() error {
	if c.DataDir == "" {
		return errors.New("node certificates: data directory is empty: set data-dir")
	}
	if c.Signer == nil {
		return errors.New("node certificates: no signer given")
	}
	if u, err := url.Parse(c.ServerURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("node certificates: server URL %q must look like https://127.0.0.1:6443", c.ServerURL)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return checkNode(NodeIdentity{c.NodeName, c.NodeIPs}, profile{}, "")
}

// keepBundle stores a bundle from the server, or checks that one is stored.
func keepBundle(path string, data []byte) error {
	if len(data) == 0 {
		if _, err := readCerts(path); err != nil {
			return fmt.Errorf("authority of the server is not known yet: join the server once while it can be reached: %w", err)
		}
		return nil
	}
	if _, err := parseCerts(data); err != nil {
		return fmt.Errorf("authority bundle for %s: %w", path, err)
	}
	if _, err := writeFile(path, data, certMode); err != nil {
		return fmt.Errorf("store authority bundle: %w", err)
	}
	return nil
}

// staleError says that a certificate could not be renewed but still works.
type staleError struct{ err error }

func (e *staleError) Error() string { return e.err.Error() }
func (e *staleError) Unwrap() error { return e.err }

type nodeLeaf struct {
	kind   Kind
	pair   KeyPair
	bundle string
}

func (n *Node) leaves() []nodeLeaf {
	return []nodeLeaf{
		{KindClientKubelet, n.ClientKubelet, n.ClientCA},
		{KindServingKubelet, n.ServingKubelet, n.ServerCA},
		{KindKubeProxy, n.KubeProxy, n.ClientCA},
		{KindController, n.Controller, n.ClientCA},
	}
}

// Renew has everything re-issued that is due or no longer right, in place, and returns the names of the certificate files
// that it wrote. It tries every certificate, and fails if any could not be renewed.
func (n *Node) Renew(ctx context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var changed []string
	var broken, stale error
	for _, leaf := range n.leaves() {
		wrote, err := n.ensureLeaf(ctx, leaf)
		if wrote {
			changed = append(changed, filepath.Base(leaf.pair.Cert))
		}
		if keep := (*staleError)(nil); errors.As(err, &keep) {
			stale = errors.Join(stale, err)
		} else if err != nil {
			broken = errors.Join(broken, err)
		}
	}
	if broken != nil {
		return changed, broken
	}
	return changed, stale
}

func (n *Node) ensureLeaf(ctx context.Context, leaf nodeLeaf) (changed bool, err error) {
	now := n.cfg.Clock()
	p, err := nodeProfile(leaf.kind, NodeIdentity{n.cfg.NodeName, n.cfg.NodeIPs})
	if err != nil {
		return false, err
	}
	issuers, err := readCerts(leaf.bundle)
	if err != nil {
		return false, err
	}
	key, err := ensureKey(leaf.pair.Key)
	if err != nil {
		return false, err
	}
	worksStill := false
	if chain, err := readCerts(leaf.pair.Cert); err == nil {
		if verdict(chain[0], key, p, issuers, now) == nil {
			return false, nil
		}
		worksStill = chain[0].Subject.CommonName == p.commonName && usable(chain[0], key, issuers, now) == nil
	}
	data, err := n.request(ctx, leaf.kind, key, p, issuers)
	if err != nil {
		err = fmt.Errorf("certificate %s: %w", leaf.kind, err)
		if worksStill {
			return false, &staleError{err}
		}
		return false, err
	}
	return writeFile(leaf.pair.Cert, data, certMode)
}

// request has the key certified, and refuses an answer that would not work.
func (n *Node) request(ctx context.Context, kind Kind, key crypto.Signer, p profile, issuers []*x509.Certificate) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	data, err := n.cfg.Signer.Sign(ctx, csr, kind)
	if err != nil {
		return nil, err
	}
	chain, err := parseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("answer of the signer: %w", err)
	}
	if err := usable(chain[0], key, issuers, n.cfg.Clock()); err != nil {
		return nil, fmt.Errorf("answer of the signer: %w", err)
	}
	if got := chain[0].Subject.CommonName; got != p.commonName {
		return nil, fmt.Errorf("answer of the signer is for %q instead of %q", got, p.commonName)
	}
	return data, nil
}

// files lists the certificates that the Renewer watches.
func (n *Node) files() []string {
	out := []string{n.ServerCA, n.ClientCA}
	for _, leaf := range n.leaves() {
		out = append(out, leaf.pair.Cert)
	}
	return out
}
