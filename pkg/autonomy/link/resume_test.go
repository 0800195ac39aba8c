package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/resume"
)

// authority is a certificate for everything, and its files.
func authority(t *testing.T) (pair tls.Certificate, files Credential) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "all"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files = Credential{Cert: filepath.Join(t.TempDir(), "crt"), Key: filepath.Join(t.TempDir(), "key")}
	for path, block := range map[string]*pem.Block{files.Cert: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	return pair, files
}

func TestLinkThatIsBackTakesUpItsSession(t *testing.T) {
	pair, files := authority(t)
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	var full, resumed atomic.Int32
	store := &resume.Store{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || len(r.TLS.PeerCertificates) != 1 {
			t.Errorf("%s with %d certificates", r.Proto, len(r.TLS.PeerCertificates))
		}
		if r.TLS.DidResume {
			resumed.Add(1)
		} else {
			full.Add(1)
		}
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, ClientCAs: roots, NextProtos: []string{"h2"}}
	base := s.TLS
	s.TLS = &tls.Config{Certificates: base.Certificates, NextProtos: base.NextProtos, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		store.Attach(c)
		return c, nil
	}}
	s.StartTLS()
	defer s.Close()
	l, err := New(Config{Server: s.URL, CA: files.Cert, Probe: files, Patience: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	await(t, l, Up)
	for range 3 {
		l.lose(Down)
		l.Doubt()
		await(t, l, Up)
	}
	if full.Load() != 1 || resumed.Load() < 3 {
		t.Errorf("%d requests on connections with a full handshake, and %d on others", full.Load(), resumed.Load())
	}
}
