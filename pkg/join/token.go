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
	"os"
	"path/filepath"
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

// TokenFiles keeps the static tokens of a server as files below its data directory. They are read at every use, so that a
// rotated token counts at once.
type TokenFiles struct {
	dir string
}

// NewTokenFiles names the token files of a server with this data directory.
func NewTokenFiles(dataDir string) TokenFiles {
	return TokenFiles{dir: filepath.Join(dataDir, "server")}
}

// The files: the server token with a second name that scripts know, and the token for nodes only.
func (f TokenFiles) server() string { return filepath.Join(f.dir, "token") }
func (f TokenFiles) node() string   { return filepath.Join(f.dir, "node-token") }
func (f TokenFiles) agent() string  { return filepath.Join(f.dir, "agent-token") }

// Ensure writes the token files: with the secrets of the settings where they are given, else with what is there, else with new
// ones. caPEM is the server's authority.
func (f TokenFiles) Ensure(caPEM []byte, serverToken, agentToken string) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("prepare token directory: %w", err)
	}
	for _, one := range []struct{ path, user, given, setting string }{
		{f.server(), userServer, serverToken, "token"}, {f.agent(), userNode, agentToken, "agent-token"},
	} {
		secret, err := chooseSecret(one.path, one.given)
		if err != nil {
			return fmt.Errorf("%s: %w", one.setting, err)
		}
		if err := writeToken(one.path, Token{CAHash: HashCA(caPEM), User: one.user, Secret: secret}); err != nil {
			return err
		}
	}
	return f.link()
}

// chooseSecret takes the given secret, or the stored one, or makes one.
func chooseSecret(path, given string) (string, error) {
	if given != "" {
		t, err := ParseToken(given)
		if err == nil && t.BootstrapID != "" {
			err = errors.New("a secret of the form xxxxxx.xxxxxxxxxxxxxxxx is kept for tokens of kedge token create: choose another")
		}
		return t.Secret, err
	}
	stored, err := readToken(path)
	if errors.Is(err, os.ErrNotExist) {
		return randomText(32)
	}
	return stored.Secret, err
}

// link gives the server token the name that scripts know.
func (f TokenFiles) link() error {
	if to, err := os.Readlink(f.node()); err == nil && to == filepath.Base(f.server()) {
		return nil
	}
	if err := os.RemoveAll(f.node()); err != nil {
		return fmt.Errorf("replace %s: %w", f.node(), err)
	}
	if err := os.Symlink(filepath.Base(f.server()), f.node()); err != nil {
		return fmt.Errorf("link %s: %w", f.node(), err)
	}
	return nil
}

// Rotate replaces the secret of the server token, or of the agent token, and returns the new token. An empty secret makes one.
// The old token is refused from then on; nodes that have joined do not need it.
func (f TokenFiles) Rotate(agent bool, secret string) (Token, error) {
	path := f.server()
	if agent {
		path = f.agent()
	}
	t, err := readToken(path)
	if err != nil {
		return Token{}, fmt.Errorf("no server has run here: %w", err)
	}
	if secret == "" {
		if secret, err = randomText(32); err != nil {
			return Token{}, err
		}
	}
	if t.Secret, err = chooseSecret(path, secret); err != nil {
		return Token{}, err
	}
	return t, writeToken(path, t)
}

// Secrets returns the secrets of the server token and of the agent token.
func (f TokenFiles) Secrets() (server, agent string, err error) {
	s, errServer := readToken(f.server())
	a, errAgent := readToken(f.agent())
	return s.Secret, a.Secret, errors.Join(errServer, errAgent)
}

// Take makes secrets those of another server of the same cluster, and says whether that changed anything.
func (f TokenFiles) Take(server, agent string) (changed bool, err error) {
	for _, one := range []struct{ path, secret string }{{f.server(), server}, {f.agent(), agent}} {
		t, err := readToken(one.path)
		if err != nil {
			return changed, err
		}
		if t.Secret == one.secret {
			continue
		}
		if err := checkSecret(one.secret); err != nil {
			return changed, err
		}
		t.Secret, changed = one.secret, true
		if err := writeToken(one.path, t); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// check says whether a static token is one of ours. The server token opens everything, the agent token what nodes need.
func (f TokenFiles) check(t Token) (bool, error) {
	server, err := readToken(f.server())
	if err != nil {
		return false, err
	}
	agent, err := readToken(f.agent())
	if err != nil {
		return false, err
	}
	isServer, isAgent := same(t.Secret, server.Secret), same(t.Secret, agent.Secret)
	switch t.User {
	case userServer:
		return isServer, nil
	case userNode:
		return isServer || isAgent, nil
	}
	return false, nil
}

func readToken(path string) (Token, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	t, err := ParseToken(string(data))
	if err != nil {
		return Token{}, fmt.Errorf("read %s: %w", path, err)
	}
	return t, nil
}

// writeToken replaces a token file so that a reader sees the old or the new one.
func writeToken(path string, t Token) error {
	text := t.String() + "\n"
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return os.Chmod(path, 0o600)
	}
	return replaceFile(path, []byte(text))
}

// replaceFile writes a private file by way of a temporary neighbour, and survives a loss of power.
func replaceFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".kedge-tmp-") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
