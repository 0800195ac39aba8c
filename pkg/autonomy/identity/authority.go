// Package identity says who asks the node API, and proves to its consumers that it is the node API. While the server cannot be reached it also
// verifies and issues tokens of service accounts, and evaluates RBAC.
// It is an inner room of pkg/autonomy; only packages of it import it.
package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Lifetimes of what the node issues to itself. The authority never leaves the node, and nobody else trusts it.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	leafLife      = 10 * 365 * 24 * time.Hour
	// early lets a clock that is set back go on.
	early = 2 * 365 * 24 * time.Hour
)

// OperatorName is the user of kedge kubectl --local.
const OperatorName = "kedge:local-operator"

// Authority is this node's own: it signs the certificate of the node API, which nothing off this node trusts, and that of the local operator, which
// only the node API and the kubelet of this node accept.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// Paths are the files of the node API, below the directory agent of the data directory.
type Paths struct {
	// Authority is the certificate that consumers trust, AuthorityKey its key.
	Authority, AuthorityKey string
	// Operator and OperatorKey are the local operator's; Kubeconfig refers to them.
	Operator, OperatorKey, Kubeconfig string
	// ClientCA is whom the kubelet trusts: the cluster's authority and this one.
	ClientCA string
	// Store is what the node knows of the cluster.
	Store string
}

// NewPaths says where the files are.
func NewPaths(dataDir string) Paths {
	in := func(name string) string { return filepath.Join(dataDir, "agent", name) }
	return Paths{
		Authority: in("node-api-ca.crt"), AuthorityKey: in("node-api-ca.key"), Operator: in("local-operator.crt"), OperatorKey: in("local-operator.key"),
		Kubeconfig: in("local.kubeconfig"), ClientCA: in("kubelet-client-ca.crt"), Store: in("autonomy.db"),
	}
}

// EnsureAuthority loads the node's authority, or makes it; node is the node's name.
func EnsureAuthority(p Paths, node string) (*Authority, error) {
	if a, err := loadAuthority(p); err == nil && a.cert.Subject.CommonName == authorityName(node) {
		return a, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority of the node API: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: authorityName(node)},
		NotBefore: now.Add(-early), NotAfter: now.Add(authorityLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority of the node API: %w", err)
	}
	if err := writeKey(p.AuthorityKey, key); err != nil {
		return nil, err
	}
	if err := writeFile(p.Authority, encodeCert(der), 0o644); err != nil {
		return nil, err
	}
	return loadAuthority(p)
}

func authorityName(node string) string { return "kedge node API of " + node }

func loadAuthority(p Paths) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(p.Authority, p.AuthorityKey)
	if err != nil {
		return nil, fmt.Errorf("read authority of the node API: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("authority of the node API has a key of another kind")
	}
	return &Authority{cert: pair.Leaf, key: key, pem: encodeCert(pair.Leaf.Raw)}, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// leaf issues a certificate for a new key.
func (a *Authority) leaf(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	now := time.Now()
	template.SerialNumber, template.KeyUsage = big.NewInt(now.UnixNano()), x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = a.cert.NotBefore, now.Add(leafLife)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// Serving issues the certificate of the node API for these names and addresses. It is not kept.
func (a *Authority) Serving(names []string, ips []net.IP) (tls.Certificate, error) {
	return a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: "kedge-node-api"}, DNSNames: names, IPAddresses: ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// EnsureOperator writes the local operator's certificate and kubeconfig for the node API at server; only root can read them.
func (a *Authority) EnsureOperator(p Paths, server string) (tls.Certificate, error) {
	if pair, err := tls.LoadX509KeyPair(p.Operator, p.OperatorKey); err == nil && pair.Leaf.CheckSignatureFrom(a.cert) == nil {
		return pair, a.writeKubeconfig(p, server)
	}
	pair, err := a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: OperatorName}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return pair, err
	}
	if err := writeKey(p.OperatorKey, pair.PrivateKey.(*ecdsa.PrivateKey)); err != nil {
		return pair, err
	}
	if err := writeFile(p.Operator, encodeCert(pair.Certificate[0]), 0o644); err != nil {
		return pair, err
	}
	return pair, a.writeKubeconfig(p, server)
}

func (a *Authority) writeKubeconfig(p Paths, server string) error {
	const name = "node"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: server, CertificateAuthority: p.Authority}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificate: p.Operator, ClientKey: p.OperatorKey}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("write kubeconfig of the local operator: %w", err)
	}
	return writeFile(p.Kubeconfig, data, 0o600)
}

// WriteClientCA writes whom the kubelet trusts: the authority of the cluster, and this node's.
func (a *Authority) WriteClientCA(p Paths, cluster string) error {
	data, err := os.ReadFile(cluster)
	if err != nil {
		return fmt.Errorf("read authority of clients: %w", err)
	}
	return writeFile(p.ClientCA, append(append(data, '\n'), a.pem...), 0o644)
}

// StoreKey derives the key of the store from a private key of this node, which never leaves it.
func StoreKey(keyFile string) ([]byte, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", keyFile)
	}
	return hkdf.Key(sha256.New, block.Bytes, nil, "kedge autonomy store", 32)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeFile replaces a file as a whole, unless it is right already.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".kedge-tmp-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
