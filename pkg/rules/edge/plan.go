package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// firstRetry and lastRetry bound the pause between two attempts to reach a server.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// recheck is how often a node that has rules asks whether they are still the same, should a server have failed to say so.
	recheck = 10 * time.Minute
	// planTimeout bounds one question for the plan.
	planTimeout = 15 * time.Second
)

func (e *Edge) planFile() string { return filepath.Join(e.cfg.Dir, "plan.json") }

func loadPlan(path string) (wire.Plan, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.Plan{}, nil
	}
	if err != nil {
		return wire.Plan{}, err
	}
	return wire.ReadPlan(data)
}

// setPlan takes over a plan, on disk first.
func (e *Edge) setPlan(p wire.Plan) error {
	if p.Digest() == e.current().Digest() {
		return nil
	}
	if err := savePlan(e.planFile(), p); err != nil {
		return fmt.Errorf("keep plan: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.plan = p
	close(e.changed)
	e.changed = make(chan struct{})
	return nil
}

func savePlan(path string, p wire.Plan) error {
	if p.Empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".plan-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// askForPlan asks for the plan at the start, and from time to time while there is one: a server says changes by itself, but not those that
// it has forgotten about in a restart.
func (e *Edge) askForPlan(ctx context.Context) {
	pause := firstRetry
	for {
		supported, err := e.fetchPlan(ctx)
		wait := recheck
		switch {
		case err != nil:
			e.cfg.Log.Debug("servers do not say the rules of this node", "error", err)
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, lastRetry)
		case !supported:
			wait = recheck * 6
		default:
			pause = firstRetry
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
				again = err != nil || !supported || !e.current().Empty()
			}
		}
	}
}

// fetchPlan asks a server; supported is false when servers have no rules.
func (e *Edge) fetchPlan(ctx context.Context) (supported bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.cfg.Server+wire.PathPlan, nil)
	if err != nil {
		return false, err
	}
	r.Header.Set(wire.HeaderPlan, e.current().Digest())
	resp, err := e.client.Do(r)
	if err != nil {
		return false, err
	}
	defer closeBody(resp)
	switch resp.StatusCode {
	case http.StatusNotModified:
		return true, nil
	case http.StatusNotFound: // switched off
		return false, e.setPlan(wire.Plan{})
	case http.StatusOK:
	default:
		return false, refusal(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxPlan+1))
	if err != nil {
		return false, err
	}
	p, err := wire.ReadPlan(data)
	if err != nil {
		return false, err
	}
	return true, e.setPlan(p)
}
