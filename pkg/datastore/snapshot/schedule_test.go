package snapshot

import (
	"testing"
	"time"
)

func TestUntil(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration, scheduled bool) Info {
		return Info{Time: now.Add(-d), Scheduled: scheduled}
	}
	for name, c := range map[string]struct {
		existing []Info
		interval time.Duration
		want     time.Duration
	}{
		"none yet":           {nil, 12 * time.Hour, 5 * time.Minute},
		"one by hand only":   {[]Info{ago(time.Hour, false)}, 12 * time.Hour, 5 * time.Minute},
		"one hour old":       {[]Info{ago(20*time.Hour, true), ago(time.Hour, true)}, 12 * time.Hour, 11 * time.Hour},
		"overdue":            {[]Info{ago(20*time.Hour, true)}, 12 * time.Hour, time.Minute},
		"often":              {nil, time.Second, time.Second},
		"clock was set back": {[]Info{ago(-time.Hour, true)}, 12 * time.Hour, 5 * time.Minute},
	} {
		if got := until(now, c.existing, c.interval, nil); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// daily is midnight.
type daily struct{}

func (daily) Next(after time.Time) time.Time {
	return after.Truncate(24 * time.Hour).Add(24 * time.Hour)
}

func TestUntilTimes(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ last, want time.Duration }{
		"none yet":        {0, 12 * time.Hour},
		"of this morning": {6 * time.Hour, 12 * time.Hour},
		"missed":          {36 * time.Hour, time.Minute},
	} {
		var existing []Info
		if c.last > 0 {
			existing = []Info{{Time: now.Add(-c.last), Scheduled: true}}
		}
		if got := until(now, existing, 12*time.Hour, daily{}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
