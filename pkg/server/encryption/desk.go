package encryption

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrOff says that the cluster has never encrypted Secrets.
var ErrOff = errors.New("secrets encryption is not set up: start the server with --secrets-encryption, or with secrets-encryption: true in /etc/kedge/config.yaml; " +
	"Secrets that are there are encrypted then")

// Desk is where an operator asks for changes, beside a running server.
type Desk struct {
	cfg   Config
	store *store
	fleet *fleet
}

// NewDesk prepares the desk. Close it after use.
func NewDesk(cfg Config) (*Desk, error) {
	f, err := newFleet(cfg)
	if err != nil {
		return nil, err
	}
	s, err := openStore(cfg.Datastore, cfg.Authority)
	if err != nil {
		return nil, err
	}
	return &Desk{cfg, s, f}, nil
}

// Close ends the desk's connections.
func (d *Desk) Close() { d.store.close() }

// Report is what an operator wants to know. Field names in JSON are those of the family.
type Report struct {
	Enabled  bool     `json:"enable"`
	Stage    Stage    `json:"stage"`
	Active   string   `json:"activekey"`
	Inactive []string `json:"inactivekeys,omitempty"`
	Match    bool     `json:"hashmatch"`
	Mismatch string   `json:"hasherror,omitempty"`
	// Secrets is how many there are, Old how many of them are not stored as new ones are.
	Secrets int `json:"secrets"`
	Old     int `json:"old"`
	// Keys are all keys, the one that encrypts first; None says that there is no configuration.
	Keys []KeyInfo `json:"-"`
	None bool      `json:"-"`
}

// KeyInfo is what may be told of a key.
type KeyInfo struct {
	Type, Name string
	Active     bool
}

// kind is how people call a type of key.
func kind(t string) string {
	if t == Secretbox {
		return "XSalsa20-POLY1305"
	}
	return "AES-CBC"
}

// Status says how things are.
func (d *Desk) Status(ctx context.Context) (Report, error) {
	state, _, err := d.store.load(ctx)
	if err != nil {
		return Report{}, err
	}
	if state == nil {
		return Report{None: true}, nil
	}
	r := Report{Enabled: state.Enabled, Stage: state.Stage}
	for i, key := range state.Keys {
		active := i == 0 && !state.Plain
		r.Keys = append(r.Keys, KeyInfo{kind(key.Type), key.Name, active})
		if active {
			r.Active = kind(key.Type) + " " + key.Name
		} else {
			r.Inactive = append(r.Inactive, kind(key.Type)+" "+key.Name)
		}
	}
	if err := d.fleet.loaded(ctx, d.store, *state); err != nil {
		r.Mismatch = err.Error()
	}
	r.Match = r.Mismatch == ""
	old, all, err := d.store.stale(ctx, *state)
	r.Secrets, r.Old = all, len(old)
	return r, err
}

// Enable has all Secrets encrypted, Disable has them decrypted.
func (d *Desk) Enable(ctx context.Context) error { return d.want(ctx, true) }

// Disable has all Secrets decrypted.
func (d *Desk) Disable(ctx context.Context) error { return d.want(ctx, false) }

func (d *Desk) want(ctx context.Context, enabled bool) error {
	return d.change(ctx, func(s State) (State, error) {
		s, _, err := s.wanted(enabled)
		return s, err
	})
}

// PrepareKey adds a key that decrypts only.
func (d *Desk) PrepareKey(ctx context.Context, force bool) error {
	return d.change(ctx, func(s State) (State, error) { return s.withKey(d.cfg.Type, time.Now(), false, force) })
}

// Rotate has the prepared key encrypt.
func (d *Desk) Rotate(ctx context.Context, force bool) error {
	return d.change(ctx, func(s State) (State, error) { return s.rotate(force) })
}

// Reencrypt has all Secrets written anew; skip keeps earlier keys.
func (d *Desk) Reencrypt(ctx context.Context, force, skip bool) error {
	return d.change(ctx, func(s State) (State, error) { return s.reencrypt(force, skip) })
}

// RotateKeys makes a new key and has all Secrets written anew with it.
func (d *Desk) RotateKeys(ctx context.Context) error {
	return d.change(ctx, func(s State) (State, error) {
		if s.Stage == Prepared || s.Stage == Rotated { // somebody began by hand
			s.Auto = true
			return s, nil
		}
		return s.withKey(d.cfg.Type, time.Now(), true, false)
	})
}

// change replaces the state, when all servers know the one there is, and waits until they know the new one.
func (d *Desk) change(ctx context.Context, how func(State) (State, error)) error {
	state, revision, err := d.store.load(ctx)
	if err != nil {
		return err
	}
	if state == nil {
		return ErrOff
	}
	after, err := how(*state)
	if err != nil {
		return err
	}
	if err := d.fleet.loaded(ctx, d.store, *state); err != nil {
		return fmt.Errorf("not all servers have the same keys: %w", err)
	}
	if err := d.store.save(ctx, after, revision); err != nil {
		return err
	}
	return d.await(ctx, revision)
}

// await waits until the servers use what follows a revision, or are past it.
func (d *Desk) await(ctx context.Context, revision int64) error {
	const patience = time.Minute
	end := time.Now().Add(patience)
	for {
		state, now, err := d.store.load(ctx)
		if err == nil && state != nil && now > revision {
			if state.Stage == ReencryptActive || state.Stage == ReencryptFinished {
				return nil
			}
			if err = d.fleet.loaded(ctx, d.store, *state); err == nil && (!state.Auto || state.Resting()) {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the change is noted, and kedge goes on with it by itself: see kedge secrets-encrypt status: %w", errors.Join(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}
