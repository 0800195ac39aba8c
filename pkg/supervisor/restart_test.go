package supervisor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestartBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		flaky := Func{ID: "flaky", Do: func(context.Context) error {
			starts = append(starts, time.Now())
			return errors.New("refused")
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c := Restart(flaky, RestartPolicy{Log: quiet(), Max: 30 * time.Second})
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := time.Second
		for i := 1; i < len(starts); i++ {
			pause := starts[i].Sub(starts[i-1])
			if pause < want*3/4 || pause > want*5/4 {
				t.Errorf("pause %d is %s, want about %s", i, pause, want)
			}
			want = min(want*2, 30*time.Second)
		}
		if len(starts) < 90 {
			t.Errorf("%d starts in an hour", len(starts))
		}
	})
}

func TestRestartForgetsOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		c := Restart(Func{ID: "long", Do: func(context.Context) error {
			starts = append(starts, time.Now())
			time.Sleep(2 * time.Minute)
			return nil
		}}, RestartPolicy{Log: quiet()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(starts); i++ {
			if pause := starts[i].Sub(starts[i-1]) - 2*time.Minute; pause > 1250*time.Millisecond {
				t.Errorf("pause %d is %s", i, pause)
			}
		}
	})
}

func TestRestartedPartMayFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		attempts := 0
		bridge := Func{ID: "bridge", Do: func(ctx context.Context) error {
			if attempts++; attempts < 6 {
				panic("port in use")
			}
			<-ctx.Done()
			d.write("stop bridge")
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		onReady := func() { d.write("ready without the bridge") }
		s := New(Config{Log: quiet(), OnReady: onReady}, Restart(bridge, RestartPolicy{Log: quiet()}), d.part("a", 0))
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(optionalWait + time.Second)
		st := s.Status()
		if st[0].State != NotReady || st[0].Reason != "waiting to be restarted: panic: port in use" || st[1].State != Ready {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Hour)
		if st := s.Status(); st[0].State != Ready {
			t.Errorf("%+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		d.want(t, "start a", "ready without the bridge", "stop a", "stop bridge")
	})
}

func TestBackoff(t *testing.T) {
	p := RestartPolicy{Min: time.Second, Max: time.Minute}
	for failures, want := range map[int]time.Duration{
		0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1000: time.Minute,
	} {
		if got := backoff(p, failures); got != want {
			t.Errorf("after %d failures %s, want %s", failures, got, want)
		}
	}
	if lo, hi := jitter(time.Second, 0), jitter(time.Second, 0.999999); lo != 750*time.Millisecond || hi > 1250*time.Millisecond {
		t.Errorf("jitter from %s to %s", lo, hi)
	}
}
