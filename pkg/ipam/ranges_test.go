package ipam

import (
	"net/netip"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestCompleteErrors(t *testing.T) {
	for want, sets := range map[string][]RangeSet{
		"ranges is empty":               nil,
		"ranges[0] is empty":            {{}},
		"subnet is missing":             {{{}}},
		"too small":                     {{{Subnet: prefix("10.0.0.0/31")}}},
		"rangeStart 10.1.0.1 is not in": {{{Subnet: prefix("10.0.0.0/24"), Start: netip.MustParseAddr("10.1.0.1")}}},
		"gateway fd00::1 is not in":     {{{Subnet: prefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("fd00::1")}}},
		"is before rangeStart":          {{{Subnet: prefix("10.0.0.0/24"), Start: netip.MustParseAddr("10.0.0.9"), End: netip.MustParseAddr("10.0.0.8")}}},
		"mixes IPv4 and IPv6":           {{{Subnet: prefix("10.0.0.0/24")}, {Subnet: prefix("fd00::/64")}}},
		"overlaps":                      {{{Subnet: prefix("10.0.0.0/16")}}, {{Subnet: prefix("10.0.3.0/24")}}},
	} {
		if err := complete(sets); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

func TestPick(t *testing.T) {
	two := RangeSet{
		{Subnet: prefix("10.0.0.0/30")},
		{Subnet: prefix("10.0.1.0/24"), Start: netip.MustParseAddr("10.0.1.10"), End: netip.MustParseAddr("10.0.1.11")},
	}
	six := RangeSet{{Subnet: prefix("fd00::/64")}}
	gateway := RangeSet{{Subnet: prefix("10.0.0.0/30"), Gateway: netip.MustParseAddr("10.0.0.2")}}
	for _, sets := range [][]RangeSet{{two}, {six}, {gateway}} {
		if err := complete(sets); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		set  RangeSet
		last string
		used string
		want string
	}{
		{"first", two, "", "", "10.0.0.2"},
		{"next range", two, "10.0.0.2", "", "10.0.1.10"},
		{"around the end", two, "10.0.1.11", "", "10.0.0.2"},
		{"around, used", two, "10.0.1.11", "10.0.0.2 10.0.1.10", "10.0.1.11"},
		{"exhausted", two, "10.0.1.10", "10.0.0.2 10.0.1.10 10.0.1.11", "invalid IP"},
		{"hint outside", two, "192.168.0.1", "", "10.0.0.2"},
		{"other gateway", gateway, "", "", "10.0.0.1"},
		{"only gateway left", gateway, "", "10.0.0.1", "invalid IP"},
		{"large subnet", six, "", "fd00::2 fd00::3", "fd00::4"},
		{"large subnet, end", six, "fd00::ffff:ffff:ffff:ffff", "", "fd00::2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			used := map[string]bool{}
			for _, a := range strings.Fields(c.used) {
				used[a] = true
			}
			last, err := netip.ParseAddr(c.last)
			if err != nil && c.last != "" {
				t.Fatal(err)
			}
			got, ok := c.set.pick(last, func(a netip.Addr) bool { return used[a.String()] })
			if got.String() != c.want || ok != got.IsValid() {
				t.Errorf("got %s %t, want %s", got, ok, c.want)
			}
		})
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, seed := range []string{"pod-a@eth0@10.42.0.2", "ctr-x@a@b@10.0.0.1+fd00::1", "pod-@eth0@", "@@", ".new", "pod-a@eth0@10.0.0.1+", "pod-a@eth0@fe80::1%eth0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		e, err := parseEntry(name)
		if err != nil {
			return
		}
		if strings.ContainsAny(e.name(), "/\x00") || strings.HasPrefix(e.name(), ".") {
			t.Errorf("%q gives the file name %q", name, e.name())
		}
		again, err := parseEntry(e.name())
		if err != nil || again.name() != e.name() {
			t.Errorf("%q is %q, then %q, %v", name, e.name(), again.name(), err)
		}
	})
}

func FuzzParseContents(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"sandboxes":[{"id":"a","netns":"/run/netns/x"}]}`, `{"sandboxes":null}`, "[", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseContents(data)
		if err != nil {
			return
		}
		next, changed := c.withSandbox(Sandbox{ID: "new", Netns: "/nonexistent"})
		if !changed && len(c.Sandboxes) == 0 || len(next.Sandboxes) == 0 {
			t.Errorf("%q lost the new sandbox", data)
		}
	})
}
