package datastore

import (
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore/snapshot"
)

func TestUntilSnapshot(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration, scheduled bool) snapshot.Info {
		return snapshot.Info{Time: now.Add(-d), Scheduled: scheduled}
	}
	for name, c := range map[string]struct {
		existing []snapshot.Info
		interval time.Duration
		want     time.Duration
	}{
		"none yet":           {nil, 12 * time.Hour, 5 * time.Minute},
		"one by hand only":   {[]snapshot.Info{ago(time.Hour, false)}, 12 * time.Hour, 5 * time.Minute},
		"one hour old":       {[]snapshot.Info{ago(20*time.Hour, true), ago(time.Hour, true)}, 12 * time.Hour, 11 * time.Hour},
		"overdue":            {[]snapshot.Info{ago(20*time.Hour, true)}, 12 * time.Hour, time.Minute},
		"often":              {nil, time.Second, time.Second},
		"clock was set back": {[]snapshot.Info{ago(-time.Hour, true)}, 12 * time.Hour, 5 * time.Minute},
	} {
		if got := untilSnapshot(now, c.existing, c.interval); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
