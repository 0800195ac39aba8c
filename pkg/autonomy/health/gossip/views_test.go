package gossip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

func TestViews(t *testing.T) {
	at, now := netip.MustParseAddrPort("10.0.0.1:6447"), time.Now()
	v := views{}
	for _, name := range []string{"a", "b", "c"} {
		v.joined(name, at)
	}
	want := func(text string) {
		t.Helper()
		if got := v.report("s").String(); got != text {
			t.Errorf("%s, want %s", got, text)
		}
	}
	want(`{"alive":["a","b","c"]}`)
	v.lost("a", now)
	v.lost("nobody", now)
	want(`{"alive":["b","c"]}`) // its machine was not asked yet
	v.asked("a", false, now)
	v.asked("b", false, now) // lives
	want(`{"alive":["b","c"],"gone":["a"]}`)
	v.lost("b", now)
	v.asked("b", true, now)
	want(`{"alive":["c"],"mute":["b"],"gone":["a"]}`)
	if alive, missing := v.counts(); alive != 1 || missing != 2 || len(v.missing()) != 2 {
		t.Errorf("%d, %d", alive, missing)
	}
	v.lost("c", now)
	v.asked("c", false, now)
	want(`{}`) // it is this node that is cut off
	v.joined("c", at)
	want(`{"alive":["c"]}`) // the others are asked again
	v.asked("a", false, now)
	v.joined("b", at)
	v.left("b", now)
	want(`{"alive":["c"],"gone":["a"]}`)
	if due := v.due(now); len(due) != 0 {
		t.Errorf("%v", due)
	}
	if due := v.due(now.Add(askEvery)); len(due) != 2 {
		t.Errorf("%v", due)
	}
	v.asked("b", true, now)
	want(`{"alive":["c"],"mute":["b"],"gone":["a"]}`)
	v.joined("b", at)
	want(`{"alive":["b","c"],"gone":["a"]}`)
	v.tidy(now.Add(forgetAfter + time.Second))
	want(`{"alive":["b","c"]}`)
}

func TestViewsAreBounded(t *testing.T) {
	v, now := views{}, time.Now()
	for i := range maxKnown + 10 {
		name := fmt.Sprint(i)
		v.joined(name, netip.AddrPort{})
		v.lost(name, now.Add(time.Duration(i)))
		v.asked(name, false, now)
	}
	if len(v) != maxKnown || v["9"] != nil || v["10"] == nil {
		t.Errorf("%d", len(v))
	}
}

func TestEachIsWatchedByAsMany(t *testing.T) {
	const nodes = 23
	by := map[string]int{}
	for i := range nodes {
		v := views{}
		for j := range nodes {
			if j != i {
				v.joined(fmt.Sprintf("n%02d", j), netip.AddrPort{})
			}
		}
		r := v.report(fmt.Sprintf("n%02d", i))
		if len(r) != watched {
			t.Fatalf("n%02d reports %v", i, r)
		}
		for name, view := range r {
			if view != verdict.Alive {
				t.Error(view)
			}
			by[name]++
		}
	}
	for name, n := range by {
		if n != watched {
			t.Errorf("%s is watched by %d", name, n)
		}
	}
	v := views{"c": {view: verdict.Alive}, "a": {view: verdict.Alive}, "x": {view: verdict.Alive}}
	if got := strings.Join(v.watch("m"), ""); got != "xac" {
		t.Error(got)
	}
}
