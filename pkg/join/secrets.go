package join

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Namespace is where identities and bootstrap tokens are kept, as Secrets.
const Namespace = metav1.NamespaceSystem

// Identities remembers which key a node name belongs to.
type Identities struct {
	// Secrets reaches the Secrets of Namespace.
	Secrets corev1client.SecretInterface
}

const (
	identitySuffix = ".node-identity.kedge"
	identityType   = corev1.SecretType("kedge.io/node-identity")
	identityKey    = "fingerprint"
)

// ErrNameTaken says that a node name belongs to another key.
var ErrNameTaken = errors.New("node name belongs to another machine")

// errUnbound says that a node name belongs to no key and no token approved this one.
var errUnbound = errors.New("node name belongs to no machine")

// fingerprint names a public key: the SHA-256 of its PKIX form in hex.
func fingerprint(key any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("node key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Bind makes the key the identity of the node if it has none, else it checks that it is the same.
func (i Identities) Bind(ctx context.Context, node string, key any) error {
	print, err := fingerprint(key)
	if err != nil {
		return err
	}
	return i.bind(ctx, node, print, true)
}

// Check returns nil when the node's name belongs to the key.
func (i Identities) Check(ctx context.Context, node string, key any) error {
	print, err := fingerprint(key)
	if err != nil {
		return err
	}
	return i.bind(ctx, node, print, false)
}

// bind checks a fingerprint against the recorded one. A first one is recorded only when a token approves it.
func (i Identities) bind(ctx context.Context, node, print string, approved bool) error {
	for range 3 {
		known, err := i.Secrets.Get(ctx, node+identitySuffix, metav1.GetOptions{})
		if err == nil {
			if !same(string(known.Data[identityKey]), print) {
				return ErrNameTaken
			}
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("read identity of node %s: %w", node, err)
		}
		if !approved {
			return errUnbound
		}
		immutable := true
		_, err = i.Secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: node + identitySuffix, Namespace: Namespace},
			Type:       identityType, Immutable: &immutable, Data: map[string][]byte{identityKey: []byte(print)},
		}, metav1.CreateOptions{})
		if err == nil {
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("record identity of node %s: %w", node, err)
		}
	}
	return fmt.Errorf("identity of node %s comes and goes", node)
}

// Readopt forgets the key of a node: the next machine with a valid token that asks for the name gets it.
func (i Identities) Readopt(ctx context.Context, node string) error {
	err := i.Secrets.Delete(ctx, node+identitySuffix, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("node %s: no machine has this name: nothing to re-adopt", node)
	}
	if err != nil {
		return fmt.Errorf("forget identity of node %s: %w", node, err)
	}
	return nil
}

// BootstrapToken is a token that expires. Kubernetes' token cleaner removes it afterwards.
type BootstrapToken struct {
	ID          string
	Secret      string // empty in lists
	Description string
	Expires     time.Time // zero for never
}

// BootstrapTokens keeps bootstrap tokens, in the form that Kubernetes defines for them.
type BootstrapTokens struct {
	// Secrets reaches the Secrets of Namespace.
	Secrets corev1client.SecretInterface
	// Clock answers for the time; nil means time.Now.
	Clock func() time.Time
}

const (
	bootstrapPrefix = "bootstrap-token-"
	bootstrapGroup  = "system:bootstrappers:kedge:default-node-token"
)

var (
	errTokenUnknown = errors.New("bootstrap token is not known")
	errTokenExpired = errors.New("bootstrap token has expired")
)

func (b BootstrapTokens) now() time.Time {
	if b.Clock == nil {
		return time.Now()
	}
	return b.Clock()
}

// Create makes a token that is valid for ttl, or for ever with 0.
func (b BootstrapTokens) Create(ctx context.Context, ttl time.Duration, description string) (BootstrapToken, error) {
	if ttl < 0 {
		return BootstrapToken{}, fmt.Errorf("life of a token: %s is negative", ttl)
	}
	id, err := randomText(6)
	if err != nil {
		return BootstrapToken{}, err
	}
	secret, err := randomText(16)
	if err != nil {
		return BootstrapToken{}, err
	}
	t := BootstrapToken{ID: id, Secret: secret, Description: description}
	data := map[string]string{
		"token-id": id, "token-secret": secret, "description": description, "auth-extra-groups": bootstrapGroup,
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "false",
	}
	if ttl > 0 {
		t.Expires = b.now().Add(ttl).UTC().Truncate(time.Second)
		data["expiration"] = t.Expires.Format(time.RFC3339)
	}
	stored := map[string][]byte{}
	for k, v := range data {
		stored[k] = []byte(v)
	}
	_, err = b.Secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: bootstrapPrefix + id, Namespace: Namespace},
		Type:       corev1.SecretTypeBootstrapToken, Data: stored,
	}, metav1.CreateOptions{})
	if err != nil {
		return BootstrapToken{}, fmt.Errorf("store token: %w", err)
	}
	return t, nil
}

// List returns the tokens without their secrets, those that expire first in front.
func (b BootstrapTokens) List(ctx context.Context) ([]BootstrapToken, error) {
	found, err := b.Secrets.List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	var out []BootstrapToken
	for _, s := range found.Items {
		if s.Type != corev1.SecretTypeBootstrapToken {
			continue
		}
		expires, err := expiration(s.Data)
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", s.Data["token-id"], err)
		}
		out = append(out, BootstrapToken{ID: string(s.Data["token-id"]), Description: string(s.Data["description"]), Expires: expires})
	}
	slices.SortFunc(out, func(x, y BootstrapToken) int {
		if x.Expires.IsZero() != y.Expires.IsZero() {
			return cmp.Compare(y.Expires.Unix(), x.Expires.Unix())
		}
		return cmp.Or(x.Expires.Compare(y.Expires), cmp.Compare(x.ID, y.ID))
	})
	return out, nil
}

// Delete removes a token, given by its first half or as a whole in any form.
func (b BootstrapTokens) Delete(ctx context.Context, token string) error {
	id := token
	if t, err := ParseToken(token); err == nil && t.BootstrapID != "" {
		id = t.BootstrapID
	}
	id, _, _ = strings.Cut(id, ".")
	err := b.Secrets.Delete(ctx, bootstrapPrefix+id, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("token %s does not exist: see kedge token list", id)
	}
	if err != nil {
		return fmt.Errorf("delete token %s: %w", id, err)
	}
	return nil
}

// check returns nil when the token may be used to join now.
func (b BootstrapTokens) check(ctx context.Context, t Token) error {
	s, err := b.Secrets.Get(ctx, bootstrapPrefix+t.BootstrapID, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errTokenUnknown
	}
	if err != nil {
		return fmt.Errorf("read bootstrap token: %w", err)
	}
	usable := s.Type == corev1.SecretTypeBootstrapToken && s.DeletionTimestamp == nil &&
		string(s.Data["token-id"]) == t.BootstrapID && string(s.Data["usage-bootstrap-authentication"]) == "true"
	if !usable || !same(string(s.Data["token-secret"]), t.Secret) {
		return errTokenUnknown
	}
	expires, err := expiration(s.Data)
	if err != nil || !expires.IsZero() && !b.now().Before(expires) {
		return errTokenExpired
	}
	return nil
}

func expiration(data map[string][]byte) (time.Time, error) {
	text := string(data["expiration"])
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("its expiration %q is not a time", text)
	}
	return t, nil
}
