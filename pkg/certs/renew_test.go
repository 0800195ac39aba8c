package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDue(t *testing.T) {
	born := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{NotBefore: born, NotAfter: born.Add(300 * time.Hour)}
	for offset, want := range map[time.Duration]bool{-time.Second: true, 0: false, 199 * time.Hour: false, 200 * time.Hour: true, 400 * time.Hour: true} {
		if got := due(born.Add(offset), leaf); got != want {
			t.Errorf("at %s: %v", offset, got)
		}
	}
}

func TestSleepTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		due      []time.Duration
		failures int
		want     time.Duration
	}{
		{nil, 0, maxSleep},
		{[]time.Duration{1000 * time.Hour, 2 * time.Hour}, 0, 2 * time.Hour},
		{[]time.Duration{-time.Hour}, 0, minSleep},
		{[]time.Duration{1000 * time.Hour}, 1, time.Minute},
		{nil, 3, 4 * time.Minute},
		{nil, 1000, maxRetry},
	} {
		var due []time.Time
		for _, d := range tc.due {
			due = append(due, now.Add(d))
		}
		if got := sleepTime(now, due, tc.failures); got != tc.want {
			t.Errorf("%v after %d failures: %s, want %s", tc.due, tc.failures, got, tc.want)
		}
	}
}

// TestRenewerOverManyMonths runs a site for 500 days of virtual time, and looks every week that nothing comes near its end.
func TestRenewerOverManyMonths(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := serverConfig(dir)
		s := ensureServer(t, cfg)
		n, err := EnsureNode(t.Context(), nodeConfig(t, s, dir))
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r, err := NewRenewer(RenewerConfig{DataDir: dir, Sets: []Renewable{s, n}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		start := time.Now()
		for time.Since(start) < 500*24*time.Hour {
			time.Sleep(7 * 24 * time.Hour)
			synctest.Wait()
			infos, err := List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range infos {
				if left := time.Until(info.NotAfter); left < LeafLife/4 {
					t.Fatalf("after %s %s has only %s left", time.Since(start), info.Name, left)
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if floor := readClockFloor(dir); time.Since(floor) > time.Second {
			t.Errorf("clock floor is %s", floor)
		}
		if strings.Contains(log.String(), "level=WARN") {
			t.Error(log.String())
		}
	})
}

type failing struct{ calls []time.Time }

func (f *failing) files() []string { return nil }
func (f *failing) Renew(context.Context) ([]string, error) {
	f.calls = append(f.calls, time.Now())
	return nil, errors.New("server is far away")
}

func TestRenewerBacksOff(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		set := &failing{}
		r, err := NewRenewer(RenewerConfig{DataDir: dir, Sets: []Renewable{set}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(set.calls) < 24 || len(set.calls) > 32 {
			t.Errorf("%d tries in a day", len(set.calls))
		}
	})
}

func TestRenewerWarnsOfAnEndingAuthority(t *testing.T) {
	dir := t.TempDir()
	s := ensureServer(t, serverConfig(dir))
	var log bytes.Buffer
	r, err := NewRenewer(RenewerConfig{DataDir: dir, Sets: []Renewable{s}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.warnAuthorities(time.Now())
	if log.Len() > 0 {
		t.Error(log.String())
	}
	r.warnAuthorities(time.Now().Add(AuthorityLife - 300*24*time.Hour))
	if got := strings.Count(log.String(), "certificate authority ends soon"); got != 3 {
		t.Errorf("%d warnings:\n%s", got, log.String())
	}
}

func TestJudgeClock(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	base := clockState{floor: year(2028), born: year(2026), ends: year(2036), patience: time.Minute, mayStepUpTo: true}
	for name, tc := range map[string]struct {
		change func(*clockState)
		want   clockAction
	}{
		"right":                           {func(s *clockState) { s.now = year(2029) }, clockAction{ok: true}},
		"1970: wait for time service":     {func(s *clockState) { s.now = year(1970) }, clockAction{until: year(2028)}},
		"1970 and nobody sets it":         {func(s *clockState) { s.now, s.waited = year(1970), time.Minute }, clockAction{stepTo: year(2028)}},
		"1970 and we may not either":      {func(s *clockState) { s.now, s.waited, s.mayStepUpTo = year(1970), time.Hour, false }, clockAction{until: year(2026)}},
		"behind the floor: wait a little": {func(s *clockState) { s.now = year(2027) }, clockAction{until: year(2028)}},
		"behind the floor: believe it":    {func(s *clockState) { s.now, s.waited = year(2027), time.Minute }, clockAction{ok: true}},
		"floor of a clock that ran ahead": {func(s *clockState) { s.now, s.floor = year(2027), year(2090) }, clockAction{ok: true}},
		"first start":                     {func(s *clockState) { *s = clockState{now: year(2026)} }, clockAction{ok: true}},
		"first start before the build":    {func(s *clockState) { *s = clockState{now: year(1970), buildTime: year(2026)} }, clockAction{until: year(2026)}},
	} {
		s := base
		tc.change(&s)
		if got := judgeClock(s); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestWaitClock(t *testing.T) {
	dir := t.TempDir()
	ensureServer(t, serverConfig(dir))
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	early := time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC)
	floor := time.Now().Truncate(time.Second)
	if err := keepClockFloor(dir, floor); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		offset := early.Sub(started)
		clock := func() time.Time { return time.Now().Add(offset) }
		var stepped time.Time
		err := WaitClock(t.Context(), ClockConfig{DataDir: dir, Patience: time.Minute, Log: quiet, Clock: clock,
			Step: func(to time.Time) error { stepped = to; return nil }})
		if err != nil || !stepped.Equal(floor) || time.Since(started) != time.Minute {
			t.Errorf("stepped to %s after %s: %v", stepped, time.Since(started), err)
		}
		time.AfterFunc(time.Hour, func() { offset = floor.Sub(time.Now()) + time.Second })
		started = time.Now()
		if err := WaitClock(t.Context(), ClockConfig{DataDir: dir, Patience: time.Minute, Log: quiet, Clock: clock}); err != nil || time.Since(started) > time.Hour+time.Second {
			t.Errorf("waited %s: %v", time.Since(started), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		offset = early.Sub(time.Now())
		if err := WaitClock(ctx, ClockConfig{DataDir: dir, Log: quiet, Clock: clock}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestClockFloorNeverMovesBack(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{now, now.Add(-time.Hour), time.Unix(0, 0)} {
		if err := keepClockFloor(dir, at); err != nil {
			t.Fatal(err)
		}
	}
	if got := readClockFloor(dir); !got.Equal(now) {
		t.Errorf("floor is %s", got)
	}
	put(t, clockFloorFile(dir), "rubbish")
	if got := readClockFloor(dir); !got.IsZero() {
		t.Errorf("rubbish gives %s", got)
	}
}
