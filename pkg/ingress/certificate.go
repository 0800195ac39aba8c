package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// pairs reads certificates from Secrets, each version of a Secret once.
type pairs struct {
	known map[string]known
}

type known struct {
	version string
	pair    *tls.Certificate
	err     error
}

func newPairs() *pairs { return &pairs{known: map[string]known{}} }

// of returns how to read a certificate now; version tells the version of a Secret that a watch has seen last.
func (p *pairs) of(ctx context.Context, client corev1client.CoreV1Interface, version func(namespace, name string) string) func(namespace, name string) (*tls.Certificate, error) {
	return func(namespace, name string) (*tls.Certificate, error) {
		key, seen := namespace+"/"+name, version(namespace, name)
		if seen == "" {
			delete(p.known, key)
			return nil, fmt.Errorf("secret %s does not exist", key)
		}
		if k, ok := p.known[key]; ok && k.version == seen {
			return k.pair, k.err
		}
		secret, err := client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read secret %s: %w", key, err)
		}
		k := known{version: seen}
		pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			k.err = fmt.Errorf("secret %s: %w", key, err)
		} else {
			k.pair = &pair
		}
		p.known[key] = k
		return k.pair, k.err
	}
}

// selfSigned makes the certificate that is shown for names without one. It lives in memory only.
func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "kedge default certificate"}, DNSNames: []string{"kedge.invalid"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
