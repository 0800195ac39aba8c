package note

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

func TestReport(t *testing.T) {
	r := Report{"b": verdict.Alive, "a": verdict.Alive, "c": verdict.Gone, "d": verdict.Mute}
	const text = `{"alive":["a","b"],"mute":["d"],"gone":["c"]}`
	if r.String() != text {
		t.Error(r.String())
	}
	back, err := ParseReport(text)
	if err != nil || !maps.Equal(back, r) {
		t.Errorf("%v, %v", back, err)
	}
	if both, err := ParseReport(`{"alive":["a"],"gone":["a"]}`); err != nil || both["a"] != verdict.Alive {
		t.Errorf("%v, %v", both, err)
	}
	if none, err := ParseReport(""); none != nil || err != nil {
		t.Errorf("%v, %v", none, err)
	}
	many := Report{}
	for i := range maxNames + 1 {
		many[fmt.Sprint(i)] = verdict.Gone
	}
	for _, bad := range []string{"{", "[]", many.String(), `{"alive":["` + strings.Repeat("x", maxText) + `"]}`} {
		if _, err := ParseReport(bad); err == nil {
			t.Errorf("%.40s was taken", bad)
		}
	}
}

func TestPlace(t *testing.T) {
	p := Place{Unit: "u", Port: 6447, Probe: 1000, Seeds: []string{"10.0.0.1"}}
	back, err := ParsePlace(p.String())
	if err != nil || back.String() != p.String() || back.Interval() != time.Second {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range []string{"", "{", `{"port":0,"probe":1000}`, `{"port":70000,"probe":1000}`, `{"port":1,"probe":1}`,
		`{"port":1,"probe":1000,"seeds":["1","2","3","4","5","6","7","8","9"]}`, strings.Repeat(" ", maxText+1)} {
		if _, err := ParsePlace(bad); err == nil {
			t.Errorf("%.40s was taken", bad)
		}
	}
}
