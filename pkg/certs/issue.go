package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"regexp"
	"slices"
	"time"
)

// profile is what a leaf certificate says. It is always made from what we know, never from a signing request.
type profile struct {
	commonName string
	groups     []string // organizations: the groups of a Kubernetes client
	names      []string
	ips        []net.IP
	usage      x509.ExtKeyUsage
	peer       bool // both a server and a client, whatever usage says
}

func (p profile) usages() []x509.ExtKeyUsage {
	if p.peer {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{p.usage}
}

// authority is a loaded CA that can sign. The first certificate signs; the others are the rest of a custom chain.
type authority struct {
	chain []*x509.Certificate
	key   crypto.Signer
}

// issue signs a leaf for the public key. Its life ends with the authority's at the latest.
func (a *authority) issue(p profile, public crypto.PublicKey, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ca := a.chain[0]
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: p.commonName, Organization: p.groups},
		DNSNames:     p.names,
		IPAddresses:  p.ips,
		NotBefore:    latest(now.Add(-backdate), ca.NotBefore),
		NotAfter:     earliest(now.Add(LeafLife), ca.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  p.usages(),

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", p.commonName, err)
	}
	data := encodeCert(der)
	for _, link := range a.chain {
		if link.CheckSignatureFrom(link) != nil { // an intermediate: peers that know only the root need it
			data = append(data, encodeCert(link.Raw)...)
		}
	}
	return data, nil
}

// newAuthority makes a self-signed CA and returns it with its PEM files.
func newAuthority(name string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("kedge-%s@%d", name, now.Unix())},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(AuthorityLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		IsCA:         true,

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	return encodeCert(der), keyPEM, nil
}

// loadAuthority reads a CA and checks that it can sign now. It never changes anything.
func loadAuthority(pair KeyPair, now time.Time) (*authority, error) {
	chain, err := readCerts(pair.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readKey(pair.Key)
	if err != nil {
		return nil, err
	}
	ca := chain[0]
	switch {
	case !samePublicKey(ca, key):
		return nil, fmt.Errorf("%s does not belong to the key in %s", pair.Cert, pair.Key)
	case !ca.IsCA:
		return nil, fmt.Errorf("%s is not a certificate authority", pair.Cert)
	case now.After(ca.NotAfter):
		return nil, fmt.Errorf("%s ended on %s", pair.Cert, ca.NotAfter.Format(time.DateOnly))
	}
	return &authority{chain: chain, key: key}, nil
}

// Kind is one of the certificates that a node asks for; it is also the name of its files.
type Kind string

// What a node may have signed, and nothing else.
const (
	KindClientKubelet  Kind = "client-kubelet"
	KindServingKubelet Kind = "serving-kubelet"
	KindKubeProxy      Kind = "client-kube-proxy"
	KindController     Kind = "client-kedge-controller"
)

// GroupNodeControllers is the group of the kedge controllers on nodes; the packaged RBAC manifest says what it may do.
const GroupNodeControllers = "system:kedge-controllers"

// NodeIdentity is who asks, as authenticated by the caller of NodeSigner.
type NodeIdentity struct {
	Name string   // Kubernetes node name
	IPs  []net.IP // addresses that its kubelet serves on
}

// nodeProfile says what the certificate of this kind holds for this node.
func nodeProfile(kind Kind, node NodeIdentity) (profile, error) {
	client := func(user string, groups ...string) (profile, error) {
		return profile{commonName: user, groups: groups, usage: x509.ExtKeyUsageClientAuth}, nil
	}
	switch kind {
	case KindClientKubelet:
		return client("system:node:"+node.Name, "system:nodes")
	case KindServingKubelet:
		return profile{commonName: "system:node:" + node.Name, groups: []string{"system:nodes"},
			names: []string{node.Name}, ips: uniqueIPs(node.IPs), usage: x509.ExtKeyUsageServerAuth}, nil
	case KindKubeProxy:
		return client("system:kube-proxy")
	case KindController:
		return client("system:kedge-controller:"+node.Name, GroupNodeControllers)
	}
	return profile{}, fmt.Errorf("certificate kind %q is unknown: nodes get client-kubelet, serving-kubelet, client-kube-proxy and client-kedge-controller", kind)
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// checkNode refuses an identity whose serving certificate would let the node pose as the apiserver: reserved holds the names
// and addresses that the apiserver's certificate carries, own is the name of the server's own node.
func checkNode(node NodeIdentity, reserved profile, own string) error {
	if len(node.Name) > 253 || !nodeName.MatchString(node.Name) {
		return fmt.Errorf("node name %q must be a lower-case DNS name of at most 253 characters: set node-name", node.Name)
	}
	for _, ip := range node.IPs {
		if ip == nil || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("node %s: address %s cannot be a node's: set node-ip", node.Name, ip)
		}
	}
	if node.Name == own {
		return nil
	}
	if slices.Contains(reserved.names, node.Name) {
		return fmt.Errorf("node name %q belongs to the server: set another node-name", node.Name)
	}
	for _, ip := range node.IPs {
		if slices.ContainsFunc(reserved.ips, ip.Equal) {
			return fmt.Errorf("node %s: address %s belongs to the server: set another node-ip", node.Name, ip)
		}
	}
	return nil
}

// parseRequest takes the public key from a signing request; nothing else in the request is used.
func parseRequest(csrPEM []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("signing request is not PEM of type CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signing request: the sender does not hold its key: %w", err)
	}
	if key, ok := request.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return nil, errors.New("signing request: RSA keys need at least 2048 bits")
	}
	return request.PublicKey, nil
}

// verdict says why a leaf on disk cannot stay in use, or nil. The order is from unusable to merely old, so that a caller
// that cannot get a new one can tell with usable whether the old one will do.
func verdict(leaf *x509.Certificate, key crypto.Signer, p profile, issuers []*x509.Certificate, now time.Time) error {
	if err := usable(leaf, key, issuers, now); err != nil {
		return err
	}
	switch {
	case leaf.Subject.CommonName != p.commonName || !sameSet(leaf.Subject.Organization, p.groups):
		return fmt.Errorf("it names %s", leaf.Subject)
	case !sameSet(leaf.DNSNames, p.names) || !sameSet(ipStrings(leaf.IPAddresses), ipStrings(p.ips)):
		return errors.New("names or addresses changed")
	case !slices.Equal(leaf.ExtKeyUsage, p.usages()):
		return errors.New("it is for another use")
	case due(now, leaf):
		return errors.New("it is due for renewal")
	}
	return nil
}

// usable says why a leaf cannot serve at all, or nil.
func usable(leaf *x509.Certificate, key crypto.Signer, issuers []*x509.Certificate, now time.Time) error {
	switch {
	case !samePublicKey(leaf, key):
		return errors.New("certificate and key do not match")
	case !slices.ContainsFunc(issuers, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }):
		return errors.New("it was signed by another authority")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it ended on %s", leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// ensureLeaf keeps the pair's key, and issues a certificate for it when verdict finds something wrong with the present one.
// Only the certificate file changes on renewal, in one rename: readers never see a pair that does not match.
func ensureLeaf(pair KeyPair, p profile, ca *authority, now time.Time) (changed bool, err error) {
	key, err := ensureKey(pair.Key)
	if err != nil {
		return false, err
	}
	if chain, err := readCerts(pair.Cert); err == nil && verdict(chain[0], key, p, ca.chain[:1], now) == nil {
		return false, os.Chmod(pair.Cert, certMode)
	}
	data, err := ca.issue(p, key.Public(), now)
	if err != nil {
		return false, err
	}
	return writeFile(pair.Cert, data, certMode)
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return serial.Add(serial, big.NewInt(1)), nil // RFC 5280 4.1.2.2: positive
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func ipStrings(ips []net.IP) []string {
	out := make([]string, 0, len(ips))
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

func sameSet(a, b []string) bool {
	return slices.Equal(sortedUnique(a), sortedUnique(b))
}

func sortedUnique(in []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(in)))
}
