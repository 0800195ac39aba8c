package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Config holds what a Supervisor needs. Zero values choose the defaults named at each field.
type Config struct {
	// Log receives one line per component at start and each change of readiness after that. Default: slog.Default().
	Log *slog.Logger
	// ReadyTimeout is the longest time one component may take to become ready. Default: 2 minutes.
	ReadyTimeout time.Duration
	// StopTimeout is the grace time one component has to return from Run after its context is done. Default: 15 s.
	StopTimeout time.Duration
	// CheckInterval is the time between two readiness checks of running components. Default: 5 s.
	CheckInterval time.Duration
	// OnReady is called once, when every component is ready for the first time. Optional.
	OnReady func()
	// OnStopping is called once, before the first component is stopped. Optional.
	OnStopping func()
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.ReadyTimeout <= 0 {
		c.ReadyTimeout = 2 * time.Minute
	}
	if c.StopTimeout <= 0 {
		c.StopTimeout = 15 * time.Second
	}
	if c.CheckInterval <= 0 {
		c.CheckInterval = 5 * time.Second
	}
	if c.OnReady == nil {
		c.OnReady = func() {}
	}
	if c.OnStopping == nil {
		c.OnStopping = func() {}
	}
	return c
}

// Supervisor runs a list of components: see Run. Use it once.
type Supervisor struct {
	cfg  Config
	root node

	mu    sync.Mutex
	errs  []error // in order of time, so the cause comes before its consequences
	abort context.CancelCauseFunc
}

// New prepares a supervisor for components, in start order. It starts nothing.
func New(cfg Config, components ...Component) *Supervisor {
	s := &Supervisor{cfg: cfg.withDefaults()}
	s.root = s.build(Sequence("", components...))
	return s
}

// Run starts the components in order, each after the one before it is ready, and blocks. When ctx is done or any
// component ends by itself it stops all of them in reverse order. It returns nil after an asked-for, clean stop, and
// otherwise the errors of all components, each with its component's name, the cause first.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := s.checkNames(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.abort = cancel
	s.mu.Unlock()
	begin := time.Now()
	if s.root.start(ctx) {
		s.watch(ctx, begin)
	}
	stopping := time.Now()
	s.cfg.Log.Info("stopping", "because", stopReason(ctx))
	s.cfg.OnStopping()
	s.root.stop()
	s.cfg.Log.Info("stopped", "took", round(time.Since(stopping)))
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// watch asks every component for its readiness until ctx is done.
func (s *Supervisor) watch(ctx context.Context, begin time.Time) {
	tick := time.NewTicker(s.cfg.CheckInterval)
	defer tick.Stop()
	announced := false
	for {
		if AllReady(s.Status()) && !announced && ctx.Err() == nil {
			announced = true
			s.cfg.Log.Info("ready", "took", round(time.Since(begin)))
			s.cfg.OnReady()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Status asks every running component whether it is ready and says how each one stands, in start order.
// It is safe to call at any time, from any goroutine.
func (s *Supervisor) Status() []Status {
	units := s.root.units()
	statuses := make([]Status, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { statuses[i] = u.refresh() })
	}
	wg.Wait()
	return statuses
}

// fail records a component's error and makes Run stop everything.
func (s *Supervisor) fail(name string, err error) {
	err = fmt.Errorf("%s: %w", name, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
	s.abort(failure{name})
}

func (s *Supervisor) checkNames() error {
	seen := map[string]bool{}
	for _, u := range s.root.units() {
		name := u.component.Name()
		if name == "" || seen[name] {
			return fmt.Errorf("component name %q is empty or used twice: give each component its own name", name)
		}
		seen[name] = true
	}
	return nil
}

// failure is the cancel cause when a component ends by itself.
type failure struct{ component string }

func (f failure) Error() string { return f.component + " failed" }

func stopReason(ctx context.Context) string {
	if cause := context.Cause(ctx); errors.As(cause, &failure{}) {
		return cause.Error()
	}
	return "asked to"
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
