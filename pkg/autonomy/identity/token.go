package identity

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	jose "gopkg.in/go-jose/go-jose.v2"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
)

// localIssuer is who issues the tokens of this node. The server does not accept them.
const localIssuer = "kedge-node-api"

// localLife is how long a token of this node is valid: the kubelet asks for another well before, and gets the server's as soon as that is there.
const localLife = 10 * time.Minute

// Claims are what is said about the holder of a token.
type Claims struct {
	jwt.Claims
	Kubernetes KubernetesClaims `json:"kubernetes.io"`
}

// KubernetesClaims are those of service accounts.
type KubernetesClaims struct {
	Namespace string `json:"namespace,omitempty"`
	Account   Ref    `json:"serviceaccount,omitzero"`
	Pod       *Ref   `json:"pod,omitempty"`
	Node      *Ref   `json:"node,omitempty"`
}

// Ref names an object.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Tokens verifies and issues tokens of service accounts while the server cannot be asked.
type Tokens struct {
	// Keys returns the server's public keys as a JSON Web Key Set, or nil when they are not known.
	Keys func() []byte
	// Alive says whether a pod of this node exists.
	Alive func(namespace, name, uid string) bool
	Local *Authority
	Now   func() time.Time
}

// Parse verifies a token and returns what it says. Its pod must live on this node.
func (t *Tokens) Parse(token string) (Claims, error) {
	var c Claims
	parsed, err := jwt.ParseSigned(token)
	if err != nil || len(parsed.Headers) != 1 {
		return c, errors.New("token is not a signed token")
	}
	if err := t.verify(parsed, &c); err != nil {
		return c, err
	}
	if err := c.Validate(jwt.Expected{Time: t.Now()}); err != nil {
		return c, fmt.Errorf("token: %w", err)
	}
	if c.Kubernetes.Namespace == "" || c.Kubernetes.Account.Name == "" || c.Kubernetes.Pod == nil {
		return c, errors.New("token does not belong to a pod")
	}
	if pod := c.Kubernetes.Pod; !t.Alive(c.Kubernetes.Namespace, pod.Name, pod.UID) {
		return c, errors.New("token belongs to a pod that is not on this node")
	}
	return c, nil
}

func (t *Tokens) verify(parsed *jwt.JSONWebToken, c *Claims) error {
	head := parsed.Headers[0]
	if err := parsed.UnsafeClaimsWithoutVerification(c); err != nil {
		return errors.New("token is not of a service account")
	}
	if c.Issuer == localIssuer {
		if head.Algorithm != string(jose.ES256) {
			return errors.New("token is signed in another way")
		}
		return parsed.Claims(t.Local.key.Public(), c)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(t.Keys(), &set); err != nil {
		return errors.New("the server's keys are not known here")
	}
	for _, key := range set.Keys {
		public := key.IsPublic() && (key.Algorithm == "" || key.Algorithm == head.Algorithm)
		if public && (head.KeyID == "" || head.KeyID == key.KeyID) && parsed.Claims(key.Key, c) == nil {
			return nil
		}
	}
	return errors.New("token was not signed by the server")
}

// User is the service account that a token was issued to, for the node API itself.
func (t *Tokens) User(token string, audiences []string) (User, error) {
	c, err := t.Parse(token)
	if err != nil {
		return User{}, err
	}
	if !slices.ContainsFunc(audiences, func(a string) bool { return c.Audience.Contains(a) }) {
		return User{}, errors.New("token is meant for another service")
	}
	ns := c.Kubernetes.Namespace
	return User{
		Name: "system:serviceaccount:" + ns + ":" + c.Kubernetes.Account.Name, UID: c.Kubernetes.Account.UID, Asker: filter.Pod, Token: token,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"},
	}, nil
}

// Expiry returns when a token of the server expires, without verifying it.
func Expiry(token string) (time.Time, bool) {
	parsed, err := jwt.ParseSigned(token)
	if err != nil {
		return time.Time{}, false
	}
	var c jwt.Claims
	if parsed.UnsafeClaimsWithoutVerification(&c) != nil || c.Expiry == nil {
		return time.Time{}, false
	}
	return c.Expiry.Time(), true
}

// Issue signs a token for a pod of this node; only this node accepts it, and only while it is cut off.
func (t *Tokens) Issue(k KubernetesClaims, audiences []string) (token string, expires time.Time, err error) {
	signer, err := newSigner(t.Local.key)
	if err != nil {
		return "", time.Time{}, err
	}
	now := t.Now()
	expires = now.Add(localLife)
	c := Claims{Kubernetes: k, Claims: jwt.Claims{
		Issuer: localIssuer, Subject: "system:serviceaccount:" + k.Namespace + ":" + k.Account.Name, Audience: audiences,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}}
	token, err = jwt.Signed(signer).Claims(c).CompactSerialize()
	return token, expires, err
}

func newSigner(key *ecdsa.PrivateKey) (jose.Signer, error) {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		return nil, fmt.Errorf("make signer: %w", err)
	}
	return s, nil
}

// Peek reads a token of this node's own store without verifying it.
func Peek(token string) (Claims, error) {
	var c Claims
	parsed, err := jwt.ParseSigned(token)
	if err != nil {
		return c, errors.New("token is not a signed token")
	}
	return c, parsed.UnsafeClaimsWithoutVerification(&c)
}
