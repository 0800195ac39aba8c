package expiry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestQueueHandsOverInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, start := NewQueue(), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		at := map[string]time.Duration{}
		broken := true
		go q.Run(ctx, func(_ context.Context, due []Deadline) error {
			if broken {
				broken = false
				return errors.New("disk is full")
			}
			for _, d := range due {
				at[d.Key] = time.Since(start)
			}
			return nil
		})
		synctest.Wait()
		q.Add("later", 2, start.Add(time.Minute))
		q.Add("soon", 1, start.Add(time.Second)) // fails once, and comes again a second later
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if at["soon"] != 2*time.Second || at["later"] != time.Minute {
			t.Errorf("handed over %v", at)
		}
	})
}

func TestNextIsLimited(t *testing.T) {
	q, now := NewQueue(), time.Now()
	for i := range int64(5) {
		q.Add("k", i, now)
	}
	if due, wait := q.next(now, 3); len(due) != 3 || wait != 0 {
		t.Errorf("%d due, then wait %v", len(due), wait)
	}
	if due, wait := q.next(now, 3); len(due) != 2 || wait != -1 {
		t.Errorf("%d due, then wait %v", len(due), wait)
	}
}
