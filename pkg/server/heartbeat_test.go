package server

import (
	"testing"
	"time"
)

func TestLeasesAreRenewedForPings(t *testing.T) {
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	for _, tc := range []struct {
		name            string
		period, renewed int // seconds; renewed after the ping, -1 for before it
		now             int
		want            bool
	}{
		{"a ping", 40, -1, 0, true},
		{"a ping that was counted", 40, 0, 5, false},
		{"the next ping is near", 40, 0, 26, false},
		{"the next ping is late", 40, 0, 50, false},
		{"the next ping is far", 120, 0, 26, true},
		{"it comes now", 120, 75, 101, false},
		{"silence", 120, 75, 200, false},
	} {
		p := pulse{beat: at(0), renewed: at(tc.renewed), period: time.Duration(tc.period) * time.Second}
		if got := p.due(at(tc.now)); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestHeartbeatsAreTakenOnce(t *testing.T) {
	h := newHeartbeats()
	h.beat("a", 40*time.Second)
	h.beat("a", 40*time.Second)
	if got := h.take(time.Now()); len(got) != 1 || got[0] != "a" {
		t.Errorf("took %v", got)
	}
	if got := h.take(time.Now()); len(got) != 0 {
		t.Errorf("took %v again", got)
	}
	h.again("a")
	if got := h.take(time.Now()); len(got) != 1 {
		t.Errorf("a renewal that failed is not repeated: %v", got)
	}
	if h.take(time.Now().Add(2 * time.Hour)); len(h.nodes) != 0 {
		t.Error("a node that has gone is kept")
	}
}
