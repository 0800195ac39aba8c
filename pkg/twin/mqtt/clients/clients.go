// Package clients keeps who may use the message bus of a node: a file with a name, a digest of a password and a list of devices for each
// client, and where the bus listens; and a second file that others write. The bus runs when there is a client. Rooms of twin import it.
package clients

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

// defaultListen is where the bus listens when nothing is said: on this machine only.
const defaultListen = "127.0.0.1:1883"

// maxClients bounds the file.
const maxClients = 4096

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Client is one client. Passwords are random and long, so that a plain digest with salt keeps them.
type Client struct {
	Name   string `json:"name"`
	Salt   string `json:"salt"`
	Digest string `json:"digest"`
	// Devices are namespace/name; empty means all of the node.
	Devices []string `json:"devices,omitempty"`

	secret *secret // of one in a credentials file
}

// Settings are the whole file, and what the node's own settings add to it.
type Settings struct {
	// Listen is an address with a port; beyond this machine the bus speaks TLS only.
	Listen  string   `json:"listen,omitempty"`
	Clients []Client `json:"clients,omitempty"`

	addresses []string
	listed    []Client // of the credentials file
	anonymous bool
}

// Addresses are where the bus listens: what the node's settings say, else Listen, else its default.
func (s Settings) Addresses() []string {
	switch {
	case len(s.addresses) > 0:
		return s.addresses
	case s.Listen != "":
		return []string{s.Listen}
	}
	return []string{defaultListen}
}

// All are the clients that the operator added on the node, then those of the credentials file.
func (s Settings) All() []Client { return slices.Concat(s.Clients, s.listed) }

// Somebody says whether anybody may connect.
func (s Settings) Somebody() bool { return len(s.Clients) > 0 || len(s.listed) > 0 || s.anonymous }

// Exposed says whether others than this machine can reach an address.
func Exposed(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err != nil || !a.Addr().IsLoopback()
}

// File is the file with a memory of what it held. It is safe for concurrent use.
type File struct {
	Path string
	// Addresses are where the bus listens, whatever the file says; nil leaves it to the file.
	Addresses []string
	// Credentials is the path of a file with further clients, see Credentials.
	Credentials string
	// Anonymous lets clients on this machine in that give no name, for all devices.
	Anonymous bool

	listed credentials
	mu     sync.Mutex
	stamp  time.Time
	size   int64
	last   Settings
	broken error
}

// Load returns the settings; a missing file holds none. Files are read again when they have changed.
func (f *File) Load() (Settings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.load()
	if err != nil {
		return Settings{}, err
	}
	s.addresses, s.anonymous = f.Addresses, f.Anonymous
	if f.Credentials != "" {
		s.listed, err = f.listed.load(f.Credentials)
	}
	return s, err
}

// load wants the lock.
func (f *File) load() (Settings, error) {
	info, err := os.Stat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		f.last, f.broken, f.stamp = Settings{}, nil, time.Time{}
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read clients of the message bus: %w", err)
	}
	if info.ModTime().Equal(f.stamp) && info.Size() == f.size {
		return f.last, f.broken
	}
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return Settings{}, fmt.Errorf("read clients of the message bus: %w", err)
	}
	f.stamp, f.size = info.ModTime(), info.Size()
	f.last, f.broken = parse(data)
	return f.last, f.broken
}

func parse(data []byte) (s Settings, err error) {
	if err := json.Unmarshal(data, &s); err != nil {
		return Settings{}, fmt.Errorf("read clients of the message bus: %w", err)
	}
	return s, nil
}

// change writes the file as a whole.
func (f *File) change(do func(*Settings) error) error {
	f.mu.Lock()
	s, err := f.load()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	s.Clients = slices.Clone(s.Clients)
	if err := do(&s); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return fmt.Errorf("write clients of the message bus: %w", err)
	}
	if err := os.WriteFile(f.Path+".new", data, 0o600); err != nil {
		return fmt.Errorf("write clients of the message bus: %w", err)
	}
	if err := os.Rename(f.Path+".new", f.Path); err != nil {
		return fmt.Errorf("write clients of the message bus: %w", err)
	}
	return nil
}

// Add makes a client, in place of one of the same name, and returns its password.
func (f *File) Add(name string, devices []string) (password string, err error) {
	if !namePattern.MatchString(name) {
		return "", fmt.Errorf("client %q: want 1 to 64 letters, digits and . _ -", name)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	password, salt := hex.EncodeToString(random[:16]), hex.EncodeToString(random[16:])
	return password, f.change(func(s *Settings) error {
		s.Clients = slices.DeleteFunc(s.Clients, func(c Client) bool { return c.Name == name })
		if len(s.Clients) >= maxClients {
			return fmt.Errorf("there are %d clients already", maxClients)
		}
		s.Clients = append(s.Clients, Client{Name: name, Salt: salt, Digest: digest(salt, password), Devices: devices})
		return nil
	})
}

// Remove takes a client away; it says whether there was one.
func (f *File) Remove(name string) (found bool, err error) {
	err = f.change(func(s *Settings) error {
		before := len(s.Clients)
		s.Clients = slices.DeleteFunc(s.Clients, func(c Client) bool { return c.Name == name })
		found = len(s.Clients) != before
		return nil
	})
	return found, err
}

// Listen changes where the bus listens.
func (f *File) Listen(address string) error {
	if a, err := netip.ParseAddrPort(address); err != nil || a.Port() == 0 {
		return fmt.Errorf("%q is not an IP address with a port, as 0.0.0.0:8883", address)
	}
	return f.change(func(s *Settings) error {
		s.Listen = address
		return nil
	})
}

func digest(salt, password string) string {
	sum := sha256.Sum256([]byte(salt + "\x00" + password))
	return hex.EncodeToString(sum[:])
}

// Client returns a client by its name. A client without a name is one on this machine, where those may be.
func (s Settings) Client(name string, here bool) (Client, bool) {
	if name == "" {
		return Client{}, s.anonymous && here
	}
	for _, list := range [][]Client{s.Clients, s.listed} {
		if i := slices.IndexFunc(list, func(c Client) bool { return c.Name == name }); i >= 0 {
			return list[i], true
		}
	}
	return Client{}, false
}

// Authenticate returns the client of a name and password; here says that it is on this machine.
func (s Settings) Authenticate(name, password string, here bool) (Client, bool) {
	c, ok := s.Client(name, here)
	if !ok || name == "" {
		return c, ok
	}
	if c.secret != nil {
		return c, c.secret.fits(password)
	}
	return c, subtle.ConstantTimeCompare([]byte(c.Digest), []byte(digest(c.Salt, password))) == 1
}
