package join

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

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

// NodeToken is the file whose content an operator gives to a new node.
func (f TokenFiles) NodeToken() string { return f.node() }

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
