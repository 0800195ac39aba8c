package encryption

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Types of keys, by the name that the API server's configuration has for them.
const (
	AESCBC    = "aescbc"
	Secretbox = "secretbox"
)

// keySize is that of AES-256 and of XSalsa20-Poly1305, in bytes.
const keySize = 32

// Stage says how far the change of a key has come.
type Stage string

// The stages, in their order; a cluster rests in the first and the last.
const (
	Start             Stage = "start"
	Prepared          Stage = "prepare"            // the new key can decrypt
	Rotated           Stage = "rotate"             // the new key encrypts
	ReencryptRequest  Stage = "reencrypt_request"  // all Secrets are to be written anew
	ReencryptActive   Stage = "reencrypt_active"   // they are being
	ReencryptFinished Stage = "reencrypt_finished" // they have been
)

// Key is one key of the API server.
type Key struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Secret []byte `json:"secret"`
}

// State is what all servers of a cluster know about the encryption of Secrets.
type State struct {
	// Enabled is what is wanted.
	Enabled bool `json:"enabled"`
	// Plain says that new values are written in clear; the keys are for those that are there.
	Plain bool  `json:"plain,omitempty"`
	Stage Stage `json:"stage"`
	// Auto has the servers take the next steps by themselves.
	Auto bool `json:"auto,omitempty"`
	// KeepOld leaves earlier keys in place when all is written anew.
	KeepOld bool `json:"keepOld,omitempty"`
	// Keys are in the order in which they are tried; the first encrypts.
	Keys []Key `json:"keys"`
}

// newKey makes a key of a type.
func newKey(kind, name string) (Key, error) {
	k := Key{Type: kind, Name: name, Secret: make([]byte, keySize)}
	if _, err := rand.Read(k.Secret); err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// first is the state of a cluster that begins to encrypt, with the keys it has or a new one. Where values are there already, all servers learn
// the key before the first of them uses it.
func first(kind string, keys []Key, used bool) (State, error) {
	s := State{Enabled: true, Stage: Start, Keys: keys}
	if len(keys) == 0 {
		if kind == "" {
			kind = AESCBC
		}
		k, err := newKey(kind, kind+"key")
		if err != nil {
			return State{}, err
		}
		s.Keys = []Key{k}
	}
	if used {
		s.Plain, s.Stage, s.Auto = true, Prepared, true
	}
	return s, nil
}

// Resting reports whether no change is on its way.
func (s State) Resting() bool { return s.Stage == Start || s.Stage == ReencryptFinished }

// prefix is what values begin with that are as new ones are written.
func (s State) prefix() string {
	if s.Plain {
		return ""
	}
	return "k8s:enc:" + s.Keys[0].Type + ":v1:" + s.Keys[0].Name + ":"
}

// moves reports whether the servers have something to do without an operator.
func (s State) moves() bool {
	_, on := s.next()
	return on || s.Stage == ReencryptActive
}

// next is the state after this one when every server has taken this one in; false where somebody else must decide, or the work on Secrets
// comes first.
func (s State) next() (State, bool) {
	s.Keys = slices.Clone(s.Keys)
	switch {
	case s.Stage == Prepared && s.Auto && s.Plain == s.Enabled: // the first key of a cluster that has Secrets already
		s.Plain, s.Stage = !s.Enabled, ReencryptRequest
	case s.Stage == Prepared && s.Auto:
		return s.promote(), true
	case s.Stage == Rotated && s.Auto:
		s.Stage = ReencryptRequest
	case s.Stage == ReencryptRequest:
		s.Stage = ReencryptActive
	default:
		return s, false
	}
	return s, true
}

// promote has the newest key encrypt.
func (s State) promote() State {
	last := len(s.Keys) - 1
	s.Keys = append([]Key{s.Keys[last]}, s.Keys[:last]...)
	s.Stage = Rotated
	return s
}

// finished is the state when all Secrets are written anew.
func (s State) finished() State {
	s.Stage, s.Auto = ReencryptFinished, false
	if !s.KeepOld {
		s.Keys = slices.Clone(s.Keys[:1])
	}
	s.KeepOld = false
	return s
}

var (
	errBusy     = errors.New("a change is on its way: see kedge secrets-encrypt status, or give --force")
	errDisabled = errors.New("secrets encryption is disabled: use kedge secrets-encrypt enable first")
)

// withKey adds a key that can decrypt.
func (s State) withKey(kind string, now time.Time, auto, force bool) (State, error) {
	switch {
	case !s.Enabled:
		return s, errDisabled
	case s.Plain || !s.Resting() && !force:
		return s, errBusy
	}
	if kind == "" {
		kind = s.Keys[0].Type
	}
	k, err := newKey(kind, kind+"key-"+now.UTC().Format("2006-01-02T15-04-05Z")) // a name may have no colon
	if err != nil {
		return s, err
	}
	if slices.ContainsFunc(s.Keys, func(old Key) bool { return old.Name == k.Name }) {
		return s, errors.New("the last key is not a second old: repeat the command")
	}
	s.Keys, s.Stage, s.Auto = append(slices.Clone(s.Keys), k), Prepared, auto
	return s, nil
}

// rotate has the prepared key encrypt, when an operator asks for it.
func (s State) rotate(force bool) (State, error) {
	switch {
	case !s.Enabled || s.Plain:
		return s, errDisabled
	case s.Stage != Prepared && !force || len(s.Keys) < 2:
		return s, fmt.Errorf("the stage is %s: use kedge secrets-encrypt prepare first", s.Stage)
	}
	s.Keys, s.Auto = slices.Clone(s.Keys), false
	return s.promote(), nil
}

// reencrypt has all Secrets written anew, when an operator asks for it.
func (s State) reencrypt(force, keepOld bool) (State, error) {
	if s.Stage != Rotated && !force {
		return s, fmt.Errorf("the stage is %s: use kedge secrets-encrypt rotate first, or give --force", s.Stage)
	}
	s.Stage, s.KeepOld, s.Auto = ReencryptRequest, keepOld, true
	return s, nil
}

// wanted turns encryption on or off; false when it is so already.
func (s State) wanted(enabled bool) (State, bool, error) {
	switch {
	case s.Enabled == enabled:
		return s, false, nil
	case !s.Resting():
		return s, false, errBusy
	}
	s.Enabled, s.Plain, s.Stage, s.Auto = enabled, !enabled, ReencryptRequest, true
	return s, true, nil
}

// The API server's configuration; field names are those of apiserver.config.k8s.io/v1.
type (
	configuration struct {
		Kind       string     `json:"kind"`
		APIVersion string     `json:"apiVersion"`
		Resources  []resource `json:"resources"`
	}
	resource struct {
		Resources []string   `json:"resources"`
		Providers []provider `json:"providers"`
	}
	provider struct {
		AESCBC    *keyring  `json:"aescbc,omitempty"`
		Secretbox *keyring  `json:"secretbox,omitempty"`
		Identity  *struct{} `json:"identity,omitempty"`
	}
	keyring struct {
		Keys []secret `json:"keys"`
	}
	secret struct {
		Name   string `json:"name"`
		Secret string `json:"secret"`
	}
)

// Configuration is the file of the API server, the same bytes on all servers.
func (s State) Configuration() ([]byte, error) {
	var ps []provider
	for _, k := range s.Keys {
		ring := &keyring{[]secret{{k.Name, base64.StdEncoding.EncodeToString(k.Secret)}}}
		if k.Type == Secretbox {
			ps = append(ps, provider{Secretbox: ring})
		} else {
			ps = append(ps, provider{AESCBC: ring})
		}
	}
	clear := provider{Identity: &struct{}{}}
	if s.Plain {
		ps = append([]provider{clear}, ps...)
	} else {
		ps = append(ps, clear)
	}
	return json.Marshal(configuration{"EncryptionConfiguration", "apiserver.config.k8s.io/v1", []resource{{[]string{"secrets"}, ps}}})
}

// keysOf reads the keys of a file that Configuration made, or another program of the family.
func keysOf(data []byte) ([]Key, error) {
	var c configuration
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read encryption configuration: %w", err)
	}
	var keys []Key
	for _, r := range c.Resources {
		for _, p := range r.Providers {
			for kind, ring := range map[string]*keyring{AESCBC: p.AESCBC, Secretbox: p.Secretbox} {
				if ring == nil {
					continue
				}
				for _, k := range ring.Keys {
					raw, err := base64.StdEncoding.DecodeString(k.Secret)
					if err != nil || len(raw) == 0 || k.Name == "" {
						return nil, fmt.Errorf("read encryption configuration: key %q is not base64", k.Name)
					}
					keys = append(keys, Key{kind, k.Name, raw})
				}
			}
		}
	}
	return keys, nil
}
