package health

import (
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	s, err := readSettings(map[string]string{
		"unit-internal-check": "true", "check-units": "unitA, unitB", "unit-label": "zone", "gossip": "off", "gossip-port": "7000",
		"probe-interval": "2s", "lost-after": " 40s ", "autonomy-duration": "24h", "autonomy-duration-other": "0",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !s.units || len(s.chosen) != 2 || s.unitLabel != "zone" || s.gossip || s.port != 7000 || s.probe != 2*time.Second ||
		s.rules.LostAfter != 40*time.Second || s.edge != 24*time.Hour || s.other != 0 {
		t.Errorf("%+v", s)
	}
	for key, bad := range map[string]string{
		"unit-internal-check": "perhaps", "unit-label": "", "gossip": "2", "gossip-port": "70000", "probe-interval": "1ms", "lost-after": "soon",
		"autonomy-duration": "-1h", "autonomy-duration-other": "x", "auto-duration": "1h",
	} {
		s, err := readSettings(map[string]string{key: bad})
		if err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s=%s: %v", key, bad, err)
		}
		if d := defaults(); s.rules != d.rules || s.port != d.port || s.unitLabel != d.unitLabel || s.edge != d.edge || s.other != d.other {
			t.Errorf("%s=%s became %+v", key, bad, s)
		}
	}
}

func TestUnits(t *testing.T) {
	const mark = "nodeunits.superedge.io"
	superedge := settings{units: true, chosen: []string{"shop", "farm"}, unitLabel: "pool"}
	all := settings{units: true, unitLabel: "pool"}
	plain := settings{unitLabel: "pool"}
	for _, tc := range []struct {
		s      settings
		labels map[string]string
		want   string
	}{
		{plain, nil, ""},
		{plain, map[string]string{"pool": "p"}, "p"},
		{plain, map[string]string{"pool": "p", "shop": mark}, "p"},
		{plain, map[string]string{"shop": mark}, "shop"},
		{plain, map[string]string{"unit-node-all": mark}, ""},
		{superedge, map[string]string{"pool": "p", "shop": mark}, "shop"},
		{superedge, map[string]string{"barn": mark, "shop": mark, "farm": mark}, "farm"},
		{superedge, map[string]string{"pool": "p", "barn": mark}, "p"},
		{all, map[string]string{"pool": "p", "barn": mark}, "barn"},
		{all, map[string]string{"pool": "p", "barn": "x"}, "p"},
	} {
		if got := tc.s.unitOf(tc.labels); got != tc.want {
			t.Errorf("%v %v: %q, want %q", tc.s, tc.labels, got, tc.want)
		}
	}
}
