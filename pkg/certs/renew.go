package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxSleep bounds how long a jump of the clock can go unnoticed.
	maxSleep = 6 * time.Hour
	// minSleep keeps the renewer quiet when an authority is about to end and every leaf is due again at once.
	minSleep = time.Minute
	// floorStep is how far the clock floor may lag behind while kedge runs: one small write a day.
	floorStep = 24 * time.Hour
	// maxRetry bounds the pause after failed renewals.
	maxRetry = time.Hour
)

// Renewable is a set of certificates that can be renewed in place: *Server and *Node.
type Renewable interface {
	// Renew re-issues what is due and returns the names of the files it wrote.
	Renew(ctx context.Context) ([]string, error)
	files() []string
}

// RenewerConfig is what NewRenewer needs to know.
type RenewerConfig struct {
	DataDir string // the clock floor is kept here
	Sets    []Renewable
	Log     *slog.Logger
	Clock   func() time.Time // nil means time.Now
}

// Renewer is the component that renews leaves while kedge runs; the Kubernetes parts reload them from disk. It also keeps the
// clock floor and warns when an authority comes to its end.
type Renewer struct {
	cfg RenewerConfig
}

// NewRenewer prepares the component.
func NewRenewer(cfg RenewerConfig) (*Renewer, error) {
	if cfg.DataDir == "" || len(cfg.Sets) == 0 || cfg.Log == nil {
		return nil, errors.New("certificate renewal: data directory, certificates and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Renewer{cfg: cfg}, nil
}

// Name implements supervisor.Component.
func (r *Renewer) Name() string { return "certificates" }

// Ready implements supervisor.Component: certificates were made before any component started.
func (r *Renewer) Ready(context.Context) error { return nil }

// Run implements supervisor.Component. A renewal that fails is logged and tried again; it never stops kedge.
func (r *Renewer) Run(ctx context.Context) error {
	var warned time.Time
	failures := 0
	for {
		now := r.cfg.Clock()
		if now.Sub(readClockFloor(r.cfg.DataDir)) >= floorStep {
			r.keepFloor(now)
		}
		if r.renewAll(ctx) {
			failures = 0
		} else {
			failures++
		}
		if now.Sub(warned) >= 24*time.Hour {
			r.warnAuthorities(now)
			warned = now
		}
		pause := sleepTime(r.cfg.Clock(), r.dueTimes(), failures)
		select {
		case <-ctx.Done():
			r.keepFloor(r.cfg.Clock())
			return nil
		case <-time.After(pause):
		}
	}
}

func (r *Renewer) keepFloor(now time.Time) {
	if err := keepClockFloor(r.cfg.DataDir, now); err != nil {
		r.cfg.Log.Warn("clock floor not written", "error", err)
	}
}

func (r *Renewer) renewAll(ctx context.Context) (ok bool) {
	ok = true
	for _, set := range r.cfg.Sets {
		changed, err := set.Renew(ctx)
		for _, name := range changed {
			r.cfg.Log.Info("certificate renewed", "certificate", name)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("certificate not renewed", "error", err)
			ok = false
		}
	}
	return ok
}

func (r *Renewer) dueTimes() []time.Time {
	var out []time.Time
	for _, set := range r.cfg.Sets {
		for _, path := range set.files() {
			if chain, err := readCerts(path); err == nil && !chain[0].IsCA {
				out = append(out, renewAt(chain[0]))
			}
		}
	}
	return out
}

func (r *Renewer) warnAuthorities(now time.Time) {
	for _, set := range r.cfg.Sets {
		for _, path := range set.files() {
			chain, err := readCerts(path)
			if err == nil && chain[0].IsCA && now.Add(authorityWarning).After(chain[0].NotAfter) {
				r.cfg.Log.Warn("certificate authority ends soon: replace it", "file", path,
					"ends", chain[0].NotAfter.Format(time.DateOnly))
			}
		}
	}
}

// sleepTime is the pause until the next look: at the first due certificate, or with backoff after failures.
func sleepTime(now time.Time, due []time.Time, failures int) time.Duration {
	if failures > 0 {
		return min(minSleep<<min(failures-1, 10), maxRetry)
	}
	pause := maxSleep
	for _, at := range due {
		pause = min(pause, at.Sub(now))
	}
	return max(pause, minSleep)
}

// The clock floor is a moment that has certainly passed. Machines without a battery clock start in 1970; the floor tells
// them so.

func clockFloorFile(dataDir string) string {
	return filepath.Join(dataDir, "clock-floor")
}

// keepClockFloor moves the floor up to now; it never moves it back.
func keepClockFloor(dataDir string, now time.Time) error {
	if !now.After(readClockFloor(dataDir)) {
		return nil
	}
	_, err := writeFile(clockFloorFile(dataDir), []byte(now.UTC().Format(time.RFC3339)+"\n"), certMode)
	return err
}

// readClockFloor returns the stored floor, or the zero time when there is none or it cannot be read.
func readClockFloor(dataDir string) time.Time {
	data, err := os.ReadFile(clockFloorFile(dataDir))
	if err != nil {
		return time.Time{}
	}
	floor, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
	if err != nil {
		return time.Time{}
	}
	return floor
}

// clockState is what is known about the clock at start.
type clockState struct {
	now         time.Time
	floor       time.Time // zero if unknown
	born, ends  time.Time // life of the authorities; zero before the first start
	buildTime   time.Time // no correct clock is before it; zero if unknown
	waited      time.Duration
	patience    time.Duration
	mayStepUpTo bool // whether we are able to set the clock
}

// clockAction is what to do about the clock.
type clockAction struct {
	ok     bool      // go on
	stepTo time.Time // set the clock to this, then go on; zero for not
	until  time.Time // otherwise wait for the clock to reach this
}

// judgeClock decides. A clock behind the floor may only have been set back: after patience it is believed, unless it is
// before the authorities' birth, when no certificate would work. Then the clock is stepped to the floor, which is wrong by
// the time the machine was off, but lets an isolated site start; without the right to step, waiting goes on.
func judgeClock(s clockState) clockAction {
	hard := latest(s.born, s.buildTime)
	target := latest(hard, s.floor)
	if !s.ends.IsZero() && !target.Before(s.ends) {
		target = hard // a floor past the authorities' end was written by a clock that ran ahead
	}
	switch {
	case !s.now.Before(target):
		return clockAction{ok: true}
	case s.waited < s.patience:
		return clockAction{until: target}
	case !s.now.Before(hard):
		return clockAction{ok: true}
	case s.mayStepUpTo:
		return clockAction{stepTo: target}
	}
	return clockAction{until: hard}
}

// ClockConfig is what WaitClock needs to know.
type ClockConfig struct {
	DataDir   string
	BuildTime time.Time             // of this binary; zero if unknown
	Patience  time.Duration         // how long to wait for time synchronisation before acting alone
	Step      func(time.Time) error // sets the system clock; nil to wait for ever instead
	Log       *slog.Logger
	Clock     func() time.Time // nil means time.Now
}

// WaitClock returns when the clock can be used: before EnsureServer and EnsureNode. It fails only when ctx is done.
func WaitClock(ctx context.Context, cfg ClockConfig) error {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	state := clockState{floor: readClockFloor(cfg.DataDir), buildTime: cfg.BuildTime, patience: cfg.Patience, mayStepUpTo: cfg.Step != nil}
	state.born, state.ends = authorityLife(cfg.DataDir)
	const tick = time.Second
	for ; ; state.waited += tick {
		state.now = cfg.Clock()
		action := judgeClock(state)
		switch {
		case action.ok:
			return nil
		case !action.stepTo.IsZero():
			if err := cfg.Step(action.stepTo); err != nil {
				cfg.Log.Warn("clock cannot be set: set it by hand or give the machine a time server", "error", err)
				state.mayStepUpTo = false
				continue
			}
			cfg.Log.Warn("clock was before the site's certificates and was moved to the last known time", "from", state.now, "to", action.stepTo)
			return nil
		case state.waited%(10*time.Minute) == 0:
			cfg.Log.Warn("clock is wrong, waiting for it to be set", "now", state.now, "expected after", action.until)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the clock: %w", ctx.Err())
		case <-time.After(tick):
		}
	}
}

// authorityLife returns when all stored authorities are valid; zero times when there are none.
func authorityLife(dataDir string) (born, ends time.Time) {
	server, node := NewServerPaths(dataDir), NewNodePaths(dataDir)
	for _, path := range []string{server.ServerCA.Cert, server.ClientCA.Cert, server.RequestHeaderCA.Cert, node.ServerCA, node.ClientCA} {
		chain, err := readCerts(path)
		if err != nil {
			continue
		}
		born = latest(born, chain[0].NotBefore)
		if ends.IsZero() || chain[0].NotAfter.Before(ends) {
			ends = chain[0].NotAfter
		}
	}
	return born, ends
}

// StepSystemClock sets the system clock. It needs the right to do so (CAP_SYS_TIME).
func StepSystemClock(to time.Time) error {
	tv := unix.NsecToTimeval(to.UnixNano())
	return unix.Settimeofday(&tv)
}
