package encryption

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Keeper is the component "secrets-encryption", which takes changes forward: it waits until all servers know a key before it is used, and writes
// all Secrets anew. It must run on one server only; when it ends in between, the next one goes on.
type Keeper struct {
	keys  *Keys
	fleet *fleet
	// known is since when all servers that are seen know the first key; zero when they do not.
	known time.Time
}

// Keeper prepares the component; it connects to nothing.
func (k *Keys) Keeper() (*Keeper, error) {
	f, err := newFleet(k.cfg)
	if err != nil {
		return nil, err
	}
	return &Keeper{keys: k, fleet: f}, nil
}

// Name implements supervisor.Component.
func (*Keeper) Name() string { return "secrets-encryption" }

// Ready implements supervisor.Component: nothing here waits for it.
func (*Keeper) Ready(context.Context) error { return nil }

// Tell implements supervisor.Teller.
func (k *Keeper) Tell() string {
	state := k.keys.state.Load()
	if state == nil {
		return ""
	}
	line := "off"
	if state.Enabled {
		line = "on"
	}
	if !state.Resting() {
		line += ", " + string(state.Stage)
		if p := k.keys.problem.Load(); p != nil {
			line += ": " + *p
		}
	}
	return line
}

// Run implements supervisor.Component.
func (k *Keeper) Run(ctx context.Context) error {
	const soon, late = time.Second, 30 * time.Second
	for failures := 0; ; {
		wait := time.Duration(1<<62 - 1)
		if state := k.keys.state.Load(); state != nil && state.moves() {
			err := k.step(ctx)
			if wait = soon; err == nil {
				k.keys.problem.Store(nil)
				failures = 0
			} else if ctx.Err() == nil {
				text := err.Error()
				k.keys.problem.Store(&text)
				if failures++; failures == 30 {
					k.keys.cfg.Log.Warn("a change of the keys for Secrets waits", "stage", state.Stage, "reason", err)
				}
				if failures > 30 {
					wait = late
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.keys.changed:
		case <-time.After(wait):
		}
	}
}

// step does what the state asks for next, once all servers know it.
func (k *Keeper) step(ctx context.Context) error {
	s, err := openStore(k.keys.cfg.Datastore, k.keys.cfg.Authority)
	if err != nil {
		return err
	}
	defer s.close()
	state, revision, err := s.load(ctx)
	if err != nil || state == nil || !state.moves() {
		return err
	}
	after, moves := state.next()
	if err := k.fleet.loaded(ctx, s, *state); err != nil {
		k.known = time.Time{}
		return err
	}
	if state.Plain && state.Enabled && !k.settled() {
		return errors.New("waiting for servers that are not seen yet")
	}
	if !moves {
		if err := k.rewrite(ctx, s, *state); err != nil {
			return err
		}
		after = state.finished()
	}
	if err := s.save(ctx, after, revision); err != nil {
		return err
	}
	if after.Resting() {
		k.keys.cfg.Log.Info("all Secrets are written anew", "encrypted", !after.Plain)
	}
	return nil
}

// settled reports whether all servers that are seen have known the key for so long that no other is there: one that was out of reach for a
// moment is seen again after two rounds of 10 s in which servers say that they live.
func (k *Keeper) settled() bool {
	const patience = 25 * time.Second
	if k.known.IsZero() {
		k.known = time.Now()
	}
	return k.keys.cfg.Alone || k.keys.cfg.Members || time.Since(k.known) > patience
}

// rewrite writes each Secret anew that is not stored as new ones are, and makes sure that none is left.
func (k *Keeper) rewrite(ctx context.Context, s *store, state State) error {
	const rounds = 3 // others change Secrets meanwhile
	for range rounds {
		old, _, err := s.stale(ctx, state)
		if err != nil || len(old) == 0 {
			return err
		}
		for _, n := range old {
			if err := k.touch(ctx, n); err != nil {
				return fmt.Errorf("write Secret %s/%s anew: %w", n.namespace, n.name, err)
			}
		}
	}
	return errors.New("some Secrets are still as they were")
}

// touch writes a Secret as it is.
func (k *Keeper) touch(ctx context.Context, n name) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	secrets := k.fleet.client.CoreV1().Secrets(n.namespace)
	found, err := secrets.Get(ctx, n.name, metav1.GetOptions{})
	if err == nil {
		_, err = secrets.Update(ctx, found, metav1.UpdateOptions{})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or was just written
	}
	return err
}
