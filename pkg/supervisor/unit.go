package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// probeTimeout bounds one call of a component's Ready.
	probeTimeout = 2 * time.Second
	// firstPoll and lastPoll are the shortest and longest pause between two readiness checks of a starting component.
	firstPoll, lastPoll = 5 * time.Millisecond, 50 * time.Millisecond
	// slowStart is when a starting component is worth a line in the log.
	slowStart = 15 * time.Second
	// optionalWait is how long the start order waits for a component that may fail alone.
	optionalWait = 5 * time.Second
)

// unit is one component inside a supervisor: its goroutine and its state.
type unit struct {
	component Component
	sup       *Supervisor
	log       *slog.Logger
	done      chan struct{} // closed when Run has returned
	probing   chan struct{} // holds a token while Ready is being called

	mu     sync.Mutex
	status Status
	cancel context.CancelFunc // set once started
}

func newUnit(s *Supervisor, c Component) *unit {
	_, optional := c.(*restarter)
	return &unit{
		component: c,
		sup:       s,
		log:       s.cfg.Log.With("component", c.Name()),
		done:      make(chan struct{}),
		probing:   make(chan struct{}, 1),
		status:    Status{Name: c.Name(), State: Waiting, Since: time.Now(), Optional: optional},
	}
}

func (u *unit) units() []*unit { return []*unit{u} }

func (u *unit) start(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	// Without the parent's cancel: only stop may end the component, or all would end at once and the order be lost.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u.mu.Lock()
	u.cancel = cancel
	u.mu.Unlock()
	u.set(Starting, "")
	go u.run(runCtx)
	return u.awaitReady(ctx)
}

func (u *unit) run(ctx context.Context) {
	defer close(u.done)
	err := guard(ctx, u.log, u.component)
	if ctx.Err() == nil {
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		u.set(Failed, err.Error())
		u.sup.fail(u.component.Name(), err)
		return
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		u.set(Failed, err.Error())
		u.sup.fail(u.component.Name(), err)
		return
	}
	u.change(Stopping, Stopped, "")
}

// guard calls Run and turns a panic of its goroutine into an error.
func guard(ctx context.Context, log *slog.Logger, c Component) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Debug("component panicked", "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.Run(ctx)
}

// awaitReady polls Ready until it is nil, the component ends, the time is over, or ctx is done.
func (u *unit) awaitReady(ctx context.Context) bool {
	begin, slow := time.Now(), false
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		err := u.probe()
		waited := time.Since(begin)
		switch {
		case u.ended() || ctx.Err() != nil:
			return false
		case err == nil:
			if !u.change(Starting, Ready, "") {
				return false
			}
			u.log.Info("component ready", "took", round(waited))
			return true
		case u.current().Optional && waited >= optionalWait:
			u.change(Starting, NotReady, err.Error())
			u.log.Warn("component not ready, going on without it", "reason", err)
			return true
		case waited >= u.sup.cfg.ReadyTimeout:
			err = fmt.Errorf("not ready after %s: %w", round(waited), err)
			u.set(Failed, err.Error())
			u.sup.fail(u.component.Name(), err)
			return false
		case waited >= slowStart && !slow:
			slow = true
			u.log.Warn("component is slow to start", "reason", err, "waited", round(waited))
		}
		u.change(Starting, Starting, err.Error())
		select {
		case <-ctx.Done():
		case <-u.done:
		case <-time.After(pause):
		}
	}
}

func (u *unit) ended() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// probe calls Ready, never twice at a time, and never waits longer than probeTimeout for it.
func (u *unit) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	late := fmt.Errorf("the readiness check gave no answer within %s", probeTimeout)
	select {
	case u.probing <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return late
	}
	answer := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answer <- fmt.Errorf("the readiness check panicked: %v", p)
			}
			cancel()
			<-u.probing
		}()
		answer <- u.component.Ready(ctx)
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		select {
		case err := <-answer:
			return err
		default:
			return late
		}
	}
}

// refresh asks a running component again whether it is ready, and returns its status.
func (u *unit) refresh() Status {
	before := u.current()
	if before.State != Ready && before.State != NotReady {
		return before
	}
	err := u.probe()
	switch {
	case err == nil && u.change(NotReady, Ready, ""):
		u.log.Info("component ready again", "after", round(time.Since(before.Since)))
	case err != nil && u.change(Ready, NotReady, err.Error()):
		u.log.Warn("component not ready", "reason", err)
	case err != nil:
		u.change(NotReady, NotReady, err.Error())
	}
	status := u.current()
	if t, ok := u.component.(Teller); ok && status.State == Ready {
		status.Note = t.Tell()
	}
	return status
}

func (u *unit) stop() {
	u.mu.Lock()
	cancel := u.cancel
	u.mu.Unlock()
	if cancel == nil {
		return // never started
	}
	if !u.ended() && u.current().State != Failed {
		u.set(Stopping, "")
	}
	begin := time.Now()
	cancel()
	select {
	case <-u.done:
		u.log.Debug("component stopped", "took", round(time.Since(begin)))
	case <-time.After(u.sup.cfg.StopTimeout):
		err := fmt.Errorf("did not stop within %s", u.sup.cfg.StopTimeout)
		u.set(Failed, err.Error())
		u.sup.fail(u.component.Name(), err)
	}
}

func (u *unit) current() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *unit) set(state State, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.State, u.status.Since, u.status.Reason = state, time.Now(), reason
}

// change moves from one state to another and reports whether the component was in the first one.
func (u *unit) change(from, to State, reason string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.status.State != from {
		return false
	}
	if from != to {
		u.status.Since = time.Now()
	}
	u.status.State, u.status.Reason = to, reason
	return true
}
