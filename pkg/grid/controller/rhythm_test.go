package controller

import (
	"testing"
	"time"
)

func TestALargeStatusIsWrittenSeldomWhileChangesGoOn(t *testing.T) {
	var small, large rhythm
	now := time.Unix(1e9, 0)
	writes := func(r *rhythm, units int, during time.Duration) (n int) {
		for end := now.Add(during); now.Before(end); n++ {
			now = now.Add(r.next(now, units)) // there is always a change to write
			r.wrote(now, units)
		}
		return n
	}
	if n := writes(&small, 10, 10*time.Minute); n < 2000 {
		t.Errorf("the status of 10 units was written %d times in 10 minutes", n)
	}
	if n := writes(&large, 1000, 10*time.Minute); n < 17 || n > 25 {
		t.Errorf("the status of 1000 units was written %d times in 10 minutes", n)
	}
	now = now.Add(10 * time.Minute)
	if wait := large.next(now, 1000); wait != pace(1000) {
		t.Errorf("one change after a quiet time waits %s", wait)
	}
}
