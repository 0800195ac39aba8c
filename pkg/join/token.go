package join

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"strings"
)

// tokenPrefix begins a token that names its cluster.
const tokenPrefix = "K10"

// Users of static tokens.
const (
	userServer = "server"
	userNode   = "node"
)

var bootstrapForm = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

var caHashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Token is what a node presents to join.
type Token struct {
	// CAHash is the SHA-256 of the server's authority file in hex; empty in the short form, which trusts the first answer.
	CAHash string
	// User is server or node; empty in the short form.
	User string
	// Secret is the password of a static token, or the second half of a bootstrap token.
	Secret string
	// BootstrapID is the first half of a bootstrap token; empty for a static one.
	BootstrapID string
}

// HashCA is the fingerprint of an authority file that tokens carry: the SHA-256 of the PEM as it is stored.
func HashCA(pem []byte) string {
	sum := sha256.Sum256(pem)
	return hex.EncodeToString(sum[:])
}

// ParseToken reads a token in any form: K10<hash>::<user>:<secret>, K10<hash>::<id>.<secret>, <id>.<secret>, or only a secret.
// Its errors never contain the secret.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	var t Token
	if rest, ok := strings.CutPrefix(text, tokenPrefix); ok {
		hash, credentials, ok := strings.Cut(rest, "::")
		hash = strings.ToLower(hash)
		if !ok || !caHashForm.MatchString(hash) {
			return t, errors.New("the token is damaged: it begins with K10 but is not K10<64 hex digits>::<user>:<secret>; copy it again as a whole")
		}
		t.CAHash, text = hash, credentials
	}
	if m := bootstrapForm.FindStringSubmatch(text); m != nil {
		t.BootstrapID, t.Secret = m[1], m[2]
		return t, nil
	}
	t.Secret = text
	if t.CAHash != "" {
		user, secret, ok := strings.Cut(text, ":")
		if !ok || user != userServer && user != userNode {
			return t, errors.New("the token is damaged: after :: it must continue with server:, node: or a bootstrap token; copy it again as a whole")
		}
		t.User, t.Secret = user, secret
	}
	return t, checkSecret(t.Secret)
}

func checkSecret(secret string) error {
	switch {
	case secret == "":
		return errors.New("the token is empty")
	case len(secret) > 512:
		return errors.New("the token is longer than 512 bytes")
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("the token contains a space or a character that is not plain ASCII; copy it again as a whole")
	case strings.Contains(secret, "::"):
		return errors.New("the token contains :: inside its secret")
	}
	return nil
}

// String is the token in its longest form. It contains the secret.
func (t Token) String() string {
	text := t.Secret
	switch {
	case t.BootstrapID != "":
		text = t.BootstrapID + "." + t.Secret
	case t.User != "":
		text = t.User + ":" + t.Secret
	}
	if t.CAHash != "" {
		text = tokenPrefix + t.CAHash + "::" + text
	}
	return text
}

// authorize puts the token on a request.
func (t Token) authorize(r *http.Request) {
	if t.BootstrapID != "" {
		r.Header.Set("Authorization", "Bearer "+t.BootstrapID+"."+t.Secret)
		return
	}
	user := t.User
	if user == "" {
		user = userNode
	}
	r.SetBasicAuth(user, t.Secret)
}

// presented reads the token from a request; ok is false when there is none in a form we know.
func presented(r *http.Request) (t Token, ok bool) {
	if user, secret, ok := r.BasicAuth(); ok {
		return Token{User: user, Secret: secret}, true
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if m := bootstrapForm.FindStringSubmatch(bearer); ok && m != nil {
		return Token{BootstrapID: m[1], Secret: m[2]}, true
	}
	return Token{}, false
}

// same compares secrets in a time that tells nothing about them, not even their lengths.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// randomText returns n characters of 0-9 and a-z.
func randomText(n int) (string, error) {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
	var out strings.Builder
	for range n {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", fmt.Errorf("make a secret: %w", err)
		}
		out.WriteByte(alphabet[i.Int64()])
	}
	return out.String(), nil
}
