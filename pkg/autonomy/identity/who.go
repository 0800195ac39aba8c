package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
)

// User is who asks.
type User struct {
	Name   string
	UID    string
	Groups []string
	Asker  filter.Asker
	// Credential is under which identity the server is asked; empty for users who bring a token.
	Credential link.Credential
	// Token is what the user brought.
	Token string
}

// Own is one identity of this node.
type Own struct {
	Name       string
	Asker      filter.Asker
	Credential link.Credential
}

// Gate authenticates requests by certificate: those of this node, and the local operator's. Tokens are taken as they are: the server verifies
// them, or Tokens does.
type Gate struct {
	// Own are the node's identities, ClientCA the file with the authority that certified them.
	Own      []Own
	ClientCA string
	// Local is this node's authority.
	Local *Authority
}

// errUnknown says that a request comes from nobody who may use the node API.
var errUnknown = errors.New("the node API serves this node's own parts, its pods and its operator")

// Who says who asks. A certificate of this node that has expired is still its own: the key has not left it.
func (g *Gate) Who(r *http.Request) (User, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token != "" {
		return User{Asker: filter.Pod, Token: token}, nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return User{}, errUnknown
	}
	leaf := r.TLS.PeerCertificates[0]
	if leaf.Subject.CommonName == OperatorName {
		roots := x509.NewCertPool()
		roots.AddCert(g.Local.cert)
		return User{Name: OperatorName, Groups: []string{"system:authenticated"}, Asker: filter.Operator}, verify(leaf, nil, roots)
	}
	for _, own := range g.Own {
		if own.Name != leaf.Subject.CommonName {
			continue
		}
		data, err := os.ReadFile(g.ClientCA)
		if err != nil {
			return User{}, fmt.Errorf("read authority of clients: %w", err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(data)
		if err := verify(leaf, r.TLS.PeerCertificates[1:], roots); err != nil {
			return User{}, err
		}
		groups := append([]string{"system:authenticated"}, leaf.Subject.Organization...)
		return User{Name: own.Name, Groups: groups, Asker: own.Asker, Credential: own.Credential}, nil
	}
	return User{}, errUnknown
}

func verify(leaf *x509.Certificate, chain []*x509.Certificate, roots *x509.CertPool) error {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain {
		options.Intermediates.AddCert(c)
	}
	if now := time.Now(); now.After(leaf.NotAfter) {
		options.CurrentTime = leaf.NotAfter
	}
	if _, err := leaf.Verify(options); err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	return nil
}
