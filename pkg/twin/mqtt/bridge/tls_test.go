package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// selfSigned returns the files of a certificate that is its own authority.
func (e *existing) selfSigned(name string) (cert, key string) {
	e.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		e.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		e.Fatal(err)
	}
	return e.file(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		e.file(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})))
}

func TestExistingBrokerWithTLS(t *testing.T) {
	e := newExisting(t)
	cert, key := e.selfSigned("broker")
	mine, mineKey := e.selfSigned("bridge")
	other, _ := e.selfSigned("other")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(secure, ":")
	e.file("conf", fmt.Sprintf("allow_anonymous true\nlistener %s 127.0.0.1\nlistener %s 127.0.0.1\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nuser root\n",
		e.port, port, mine, cert, key))
	e.start()
	for what, c := range map[string]struct {
		cfg  Config
		want bool
	}{
		"another authority": {Config{CA: other, Cert: mine, Key: mineKey}, false},
		"no certificate":    {Config{CA: cert}, false},
		"all as it must be": {Config{CA: cert, Cert: mine, Key: mineKey}, true},
		"no authority":      {Config{CA: key, Cert: mine, Key: mineKey}, false},
	} {
		c.cfg.Broker = "ssl://" + secure
		c.cfg.Hub = newHub(t)
		b, err := New(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		reached := false
		_, err = b.serve(ctx, func() { reached = true; cancel() })
		cancel()
		if reached != c.want || !reached && err == nil {
			t.Errorf("%s: reached %v, %v", what, reached, err)
		}
	}
}

// repeated is a message as the library hands it over.
type repeated struct {
	id        uint16
	duplicate bool
	payload   string
}

func (m repeated) Duplicate() bool   { return m.duplicate }
func (m repeated) Qos() byte         { return 1 }
func (m repeated) Retained() bool    { return false }
func (m repeated) Topic() string     { return at + "twin/update" }
func (m repeated) MessageID() uint16 { return m.id }
func (m repeated) Payload() []byte   { return []byte(m.payload) }
func (m repeated) Ack()              {}

func TestWhatComesAgainIsNotDoneTwice(t *testing.T) {
	b, err := New(Config{Broker: "tcp://a:1"})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		m    repeated
		want bool
	}{
		{repeated{1, false, "a"}, false}, {repeated{1, true, "a"}, true}, {repeated{2, true, "a"}, false}, {repeated{3, true, "b"}, false},
		{repeated{1, false, "a"}, false}, // the same number for the same question, a day later
	} {
		if got := b.again(c.m); got != c.want {
			t.Errorf("message %d: %v", i, got)
		}
	}
	for i := range uint16(3 * maxKnown) {
		b.again(repeated{i, false, "x"})
	}
	if len(b.known) > maxKnown || len(b.order) > maxKnown {
		t.Errorf("%d questions are remembered", len(b.known))
	}
}
