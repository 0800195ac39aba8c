package snapshot

import (
	"context"
	"log/slog"
	"time"
)

// Schedule takes snapshots from time to time.
type Schedule struct {
	Config
	// Interval is the time between two; less than 0 takes none. Times, when set, says when instead. Keep is how many stay.
	Interval time.Duration
	Times    Times
	Keep     int
	Log      *slog.Logger
}

// Times returns the first time to take a snapshot after another one.
type Times interface {
	Next(after time.Time) time.Time
}

// first is how long a new datastore waits for its first snapshot, so that it has one soon.
const first = 5 * time.Minute

// until is how long it is to the next scheduled snapshot.
func until(now time.Time, existing []Info, interval time.Duration, times Times) time.Duration {
	wait := min(first, interval)
	if times != nil {
		wait = times.Next(now).Sub(now)
		for _, s := range existing {
			if s.Scheduled && s.Time.Before(now) { // one that was missed is made up for
				wait = max(time.Minute, times.Next(s.Time).Sub(now))
			}
		}
		return wait
	}
	for _, s := range existing {
		if s.Scheduled && s.Time.Before(now) {
			wait = max(time.Minute, s.Time.Add(interval).Sub(now))
		}
	}
	return min(wait, interval)
}

// retry is the wait after a snapshot that failed.
const retry = 10 * time.Minute

// Run takes the scheduled snapshots until ctx is done.
func (s Schedule) Run(ctx context.Context) {
	if s.Interval < 0 {
		return
	}
	for {
		existing, err := List(s.Dir)
		if err != nil {
			s.Log.Error("cannot list the snapshots", "error", err)
		}
		if !sleep(ctx, until(time.Now(), existing, s.Interval, s.Times)) {
			return
		}
		if err := s.take(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("cannot take the scheduled snapshot", "error", err)
			if !sleep(ctx, min(retry, s.Interval)) {
				return
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// take takes one snapshot and deletes those that are too many; never the other way round.
func (s Schedule) take(ctx context.Context) error {
	if _, err := Save(ctx, s.Config, "", true); err != nil {
		return err
	}
	existing, err := List(s.Dir)
	if err != nil {
		return err
	}
	for _, old := range Expired(existing, s.Keep) {
		if err := Delete(s.Dir, old.Name); err != nil {
			return err
		}
	}
	return nil
}
