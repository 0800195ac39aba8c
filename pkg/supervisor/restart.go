package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// RestartPolicy is how Restart waits between two runs. Zero values choose the defaults.
type RestartPolicy struct {
	// Log receives one warning for each failed run. Default: slog.Default().
	Log *slog.Logger
	// Min is the pause after the first failure; it doubles with each further one. Default: 1 s.
	Min time.Duration
	// Max is the longest pause; a run that lasts longer than Max makes the next pause Min again. Default: 1 minute.
	Max time.Duration
}

// Restart wraps a component that may fail alone: when its Run ends, it is run again after a pause that grows and is
// jittered by a quarter to either side. The start of kedge waits only a few seconds for such a component and goes on.
// Not for in-process Kubernetes parts: their process-wide state forbids a second start.
func Restart(c Component, p RestartPolicy) Component {
	if p.Log == nil {
		p.Log = slog.Default()
	}
	if p.Min <= 0 {
		p.Min = time.Second
	}
	if p.Max < p.Min {
		p.Max = max(time.Minute, p.Min)
	}
	return &restarter{inner: c, policy: p}
}

type restarter struct {
	inner  Component
	policy RestartPolicy

	mu   sync.Mutex
	down error // why Run is not running now
}

func (r *restarter) Name() string { return r.inner.Name() }

func (r *restarter) Ready(ctx context.Context) error {
	r.mu.Lock()
	down := r.down
	r.mu.Unlock()
	if down != nil {
		return fmt.Errorf("waiting to be restarted: %w", down)
	}
	return r.inner.Ready(ctx)
}

func (r *restarter) Run(ctx context.Context) error {
	log := r.policy.Log.With("component", r.inner.Name())
	for failures := 0; ; {
		r.setDown(nil)
		begin := time.Now()
		err := guard(ctx, log, r.inner)
		if ctx.Err() != nil {
			return err
		}
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		r.setDown(err)
		if time.Since(begin) > r.policy.Max {
			failures = 0
		}
		pause := jitter(backoff(r.policy, failures), rand.Float64())
		failures++
		log.Warn("component failed, restarting it", "error", err, "pause", round(pause))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (r *restarter) setDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

// backoff is the pause after a number of failures in a row: Min, doubled each time, at most Max.
func backoff(p RestartPolicy, failures int) time.Duration {
	d := p.Min
	for range failures {
		if d >= p.Max/2 {
			return p.Max
		}
		d *= 2
	}
	return d
}

// jitter spreads d by a quarter to either side; r is a random number in [0, 1).
func jitter(d time.Duration, r float64) time.Duration {
	return time.Duration(float64(d) * (0.75 + r/2))
}
