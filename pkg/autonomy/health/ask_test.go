package health

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	at := time.Now()
	for late, want := range map[time.Duration]time.Duration{
		time.Second: 0, 3 * time.Second: 0, 4 * time.Second: 3 * time.Second, time.Hour: time.Hour - time.Second,
	} {
		if got := stall(at, at.Add(late)); got != want {
			t.Errorf("a round after %v: %v, want %v", late, got, want)
		}
	}
	if got := stall(time.Time{}, at); got != 0 {
		t.Errorf("the first round: %v", got)
	}
	c := &Controller{records: map[string]*memory{"a": {heard: at}}, looked: at}
	c.missed(at.Add(time.Minute))
	if silence := at.Add(time.Minute).Sub(c.records["a"].heard); silence != time.Second {
		t.Errorf("after a minute in which the server stood still, a node has been silent for %v", silence)
	}
}

// TestOneQuestionMayDrown has a node of which nothing is heard asked: it waits for a second answer when the first did not come in time, and not when
// nothing leads to the node.
func TestOneQuestionMayDrown(t *testing.T) {
	s, begin := defaults(), time.Now()
	timeout := fmt.Errorf("ask: %w", context.DeadlineExceeded)
	for name, tc := range map[string]struct {
		answers []error
		want    bool // it is still waited for
	}{
		"not asked":            {nil, true},
		"one drowned":          {[]error{timeout}, true},
		"two drowned":          {[]error{timeout, timeout}, false},
		"nothing leads there":  {[]error{errors.New("not connected")}, false},
		"an answer in between": {[]error{timeout, nil, timeout}, true},
	} {
		c := &Controller{records: map[string]*memory{"a": {heard: begin}}, answers: make(chan answer, maxAsked)}
		m, now := c.records["a"], begin
		for _, err := range tc.answers {
			now = now.Add(s.rules.LostAfter)
			c.answers <- answer{"a", now, err}
			c.hear(now)
		}
		if got := m.waiting(s, s.rules.LostAfter); got != tc.want {
			t.Errorf("%s: waits %v", name, got)
		}
		if m.waiting(s, 2*s.rules.LostAfter) {
			t.Errorf("%s: it is waited for without end", name)
		}
	}
}
