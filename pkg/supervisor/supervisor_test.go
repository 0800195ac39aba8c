package supervisor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary is the order in which things happened.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("happened %q\n   want %q", d.lines, lines)
	}
}

// part becomes ready after a time and runs until it is stopped.
func (d *diary) part(name string, startup time.Duration) Func {
	var mu sync.Mutex
	var begin time.Time
	return Func{
		ID: name,
		Do: func(ctx context.Context) error {
			d.write("start " + name)
			mu.Lock()
			begin = time.Now()
			mu.Unlock()
			<-ctx.Done()
			d.write("stop " + name)
			return nil
		},
		Check: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if begin.IsZero() || time.Since(begin) < startup {
				return errors.New("still warming up")
			}
			return nil
		},
	}
}

func dying(name string, after time.Duration, err error) Func {
	return Func{ID: name, Do: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(after):
			return err
		}
	}}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Config{
			Log:        slog.New(slog.NewTextHandler(&log, nil)),
			OnReady:    func() { d.write("all ready"); cancel() },
			OnStopping: func() { d.write("stopping") },
		}, d.part("a", time.Second), d.part("b", 0), d.part("c", 3*time.Second))
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		d.want(t, "start a", "start b", "start c", "all ready", "stopping", "stop c", "stop b", "stop a")
		if n := strings.Count(log.String(), "component ready"); n != 3 {
			t.Errorf("%d lines for 3 components:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), "\n"); n != 6 { // 3 components, ready, stopping, stopped
			t.Errorf("%d lines in all:\n%s", n, &log)
		}
	})
}

func TestGroupStartsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		s := New(Config{Log: quiet(), OnReady: cancel},
			Group("both", d.part("slow", 4*time.Second), Sequence("chain", d.part("x", 2*time.Second), d.part("y", 2*time.Second))),
			d.part("last", 0))
		if names := s.Status(); len(names) != 4 || names[2].Name != "y" || names[2].State != Waiting {
			t.Errorf("status before start: %+v", names)
		}
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 4500*time.Millisecond {
			t.Errorf("took %s, one after the other", took)
		}
		if d.lines[3] != "start last" || d.lines[4] != "stop last" {
			t.Errorf("%q", d.lines)
		}
		if slices.Index(d.lines, "stop y") > slices.Index(d.lines, "stop x") {
			t.Errorf("a sequence stops in reverse: %q", d.lines)
		}
	})
}

func TestDeathOfAPartStopsAll(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		victim Func
		want   string
	}{
		"error":     {dying("victim", time.Minute, boom), "victim: boom"},
		"early nil": {dying("victim", time.Minute, nil), "victim: ended unexpectedly"},
		"panic":     {Func{ID: "victim", Do: func(context.Context) error { panic("oops") }}, "victim: panic: oops"},
		"in start": {Func{ID: "victim", Do: dying("", time.Second, boom).Do,
			Check: func(context.Context) error { return errors.New("never") }}, "victim: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d diary
				s := New(Config{Log: quiet()}, d.part("a", 0), tc.victim, d.part("z", time.Hour))
				err := s.Run(t.Context())
				if err == nil || err.Error() != tc.want {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				if last := d.lines[len(d.lines)-1]; last != "stop a" {
					t.Errorf("%q", d.lines)
				}
				if st := s.Status(); st[1].State != Failed || st[0].State != Stopped {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

func TestErrorsKeepTheCauseFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := Func{ID: "first", Do: func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("could not flush")
		}}
		err := New(Config{Log: quiet()}, first, dying("second", time.Second, errors.New("boom"))).Run(t.Context())
		if want := "second: boom\nfirst: could not flush"; err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
}

func TestNeverReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		s := New(Config{Log: quiet(), ReadyTimeout: time.Minute}, d.part("a", 0), d.part("b", time.Hour), d.part("c", 0))
		err := s.Run(t.Context())
		if want := "b: not ready after 1m0"; err == nil || !strings.HasPrefix(err.Error(), want) ||
			!strings.HasSuffix(err.Error(), ": still warming up") {
			t.Errorf("got %v", err)
		}
		d.want(t, "start a", "start b", "stop b", "stop a")
		if st := s.Status(); st[1].State != Failed || st[2].State != Waiting {
			t.Errorf("%+v", st)
		}
	})
}

func TestHangingReadinessCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		release := make(chan struct{})
		hung := d.part("hung", 0)
		hung.Check = func(context.Context) error { <-release; return nil }
		s := New(Config{Log: quiet(), ReadyTimeout: 10 * time.Second}, hung)
		err := s.Run(t.Context())
		close(release)
		if err == nil || !strings.Contains(err.Error(), "gave no answer within 2s") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStuckAtStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		stuck := Func{ID: "stuck", Do: func(context.Context) error { <-release; return nil }}
		s := New(Config{Log: quiet(), StopTimeout: 7 * time.Second, OnReady: cancel}, d.part("a", 0), stuck)
		begin := time.Now()
		err := s.Run(ctx)
		if err == nil || err.Error() != "stuck: did not stop within 7s" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took.Round(time.Second) != 7*time.Second {
			t.Errorf("took %s", took)
		}
		d.want(t, "start a", "stop a")
		close(release)
	})
}

func TestStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		onReady := func() { t.Error("it never was ready") }
		if err := New(Config{Log: quiet(), OnReady: onReady}, d.part("a", 0), d.part("b", time.Hour)).Run(ctx); err != nil {
			t.Errorf("an asked-for stop is not an error: %v", err)
		}
		d.want(t, "start a", "start b", "stop b", "stop a")
	})
}

func TestReadinessComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var mu sync.Mutex
		var sick error
		setSick := func(err error) { mu.Lock(); sick = err; mu.Unlock() }
		part := Func{ID: "p", Do: func(ctx context.Context) error { <-ctx.Done(); return nil },
			Check: func(context.Context) error { mu.Lock(); defer mu.Unlock(); return sick }}
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, part)
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Second)
		setSick(errors.New("disk full"))
		time.Sleep(time.Minute)
		if st := s.Status()[0]; st.State != NotReady || st.Reason != "disk full" || time.Since(st.Since) < 50*time.Second {
			t.Errorf("%+v", st)
		}
		setSick(nil)
		if st := s.Status(); !AllReady(st) {
			t.Errorf("asked on demand: %+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, line := range []string{`msg="component not ready" component=p reason="disk full"`, `msg="component ready again"`} {
			if strings.Count(log.String(), line) != 1 {
				t.Errorf("want once %s in\n%s", line, &log)
			}
		}
	})
}

func TestNamesMustDiffer(t *testing.T) {
	var d diary
	err := New(Config{Log: quiet()}, d.part("a", 0), Group("g", d.part("a", 0))).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"a" is empty or used twice`) {
		t.Errorf("got %v", err)
	}
	d.want(t)
}
