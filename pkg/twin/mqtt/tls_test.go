package mqtt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

// authority signs certificates for a test and returns their files.
type authority struct {
	*testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{T: t, dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key, a.file = a.sign(template, name)
	return a
}

func (a *authority) sign(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	file := filepath.Join(a.dir, name+".crt")
	for path, block := range map[string]*pem.Block{file: {Type: "CERTIFICATE", Bytes: der}, filepath.Join(a.dir, name+".key"): {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.Fatal(err)
		}
	}
	return cert, key, file
}

// leaf returns the files of a certificate for this machine.
func (a *authority) leaf(name string) (cert, key string) {
	a.Helper()
	_, _, file := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, name)
	return file, strings.TrimSuffix(file, ".crt") + ".key"
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestTLSWithMosquittoClients(t *testing.T) {
	needTools(t)
	server, other, people := newAuthority(t, "server"), newAuthority(t, "other"), newAuthority(t, "people")
	cert, key := server.leaf("node")
	shown, shownKey := people.leaf("press")
	credentials := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte("# clients\npress-1 sesame d1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open, mutual := freePort(t), freePort(t)
	plain := freePort(t)
	s := newSiteWith(t, Config{TLS: TLS{Cert: cert, Key: key}, Clients: &clients.File{
		Credentials: credentials, Anonymous: true, Addresses: []string{"127.0.0.1:" + plain, "0.0.0.0:" + open},
	}})
	strict := newSiteWith(t, Config{TLS: TLS{Cert: cert, Key: key, ClientCA: people.file}, Clients: &clients.File{
		Credentials: credentials, Addresses: []string{"0.0.0.0:" + mutual},
	}})
	login := []string{"-u", "press-1", "-P", "sesame"}
	ask := []string{"-q", "1", "-t", "$hw/events/device/d1/twin/get", "-n"}
	for port, site := range map[string]*site{open: s, mutual: strict, plain: s} {
		site.address = "127.0.0.1:" + port
		site.answers()
	}
	for _, c := range []struct {
		what string
		at   *site
		port string
		args []string
		want bool
	}{
		{"the right authority", s, open, append([]string{"--cafile", server.file}, login...), true},
		{"another authority", s, open, append([]string{"--cafile", other.file}, login...), false},
		{"no TLS", s, open, login, false},
		{"a wrong password", s, open, []string{"--cafile", server.file, "-u", "press-1", "-P", "x"}, false},
		{"nobody from far", s, open, []string{"--cafile", server.file}, false},
		{"nobody from here", s, plain, nil, true},
		{"a certificate", strict, mutual, append([]string{"--cafile", server.file, "--cert", shown, "--key", shownKey}, login...), true},
		{"no certificate", strict, mutual, append([]string{"--cafile", server.file}, login...), false},
		{"the certificate of a stranger", strict, mutual, append([]string{"--cafile", server.file, "--cert", cert, "--key", key}, login...), false},
		{"a certificate without password", strict, mutual, []string{"--cafile", server.file, "--cert", shown, "--key", shownKey}, false},
	} {
		c.at.address = "127.0.0.1:" + c.port
		if out, err := c.at.tool("mosquitto_pub", append(c.args, ask...)...); (err == nil) != c.want {
			t.Errorf("%s: %v: %s", c.what, err, out)
		}
	}
	s.address = "127.0.0.1:" + open
	with := append([]string{"--cafile", server.file}, login...)
	e := s.listen("$hw/events/device/d1/twin/#", with...)
	if out, err := s.tool("mosquitto_pub", append(with, ask...)...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	e.await("$hw/events/device/d1/twin/get/result ")
}

// answers waits until somebody listens.
func (s *site) answers() {
	s.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			s.Fatal(err)
		}
	}
}
