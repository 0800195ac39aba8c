package dns

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestAddressChanges(t *testing.T) {
	have := func(cidrs ...string) (out []netlink.Addr) {
		for _, c := range cidrs {
			a, err := netlink.ParseAddr(c)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, *a)
		}
		return out
	}
	want := []netip.Addr{netip.MustParseAddr("10.43.0.10"), netip.MustParseAddr("fd43::a")}
	for _, c := range []struct {
		name        string
		have        []netlink.Addr
		add, remove []string
	}{
		{"fresh", nil, []string{"10.43.0.10", "fd43::a"}, nil},
		{"adopted", have("10.43.0.10/32", "fd43::a/128", "fe80::1/64"), nil, nil},
		{"old cluster", have("10.96.0.10/32", "10.43.0.10/32"), []string{"fd43::a"}, []string{"10.96.0.10/32"}},
	} {
		add, remove := addressChanges(want, c.have)
		var gotAdd, gotRemove []string
		for _, a := range add {
			gotAdd = append(gotAdd, a.String())
		}
		for _, a := range remove {
			gotRemove = append(gotRemove, a.IPNet.String())
		}
		if !slices.Equal(gotAdd, c.add) || !slices.Equal(gotRemove, c.remove) {
			t.Errorf("%s: add %q remove %q, want %q %q", c.name, gotAdd, gotRemove, c.add, c.remove)
		}
	}
}

func TestConntrackRules(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.43.0.10"), netip.MustParseAddr("fd43::a")}
	want := []string{
		"ip daddr { 10.43.0.10 } udp dport 53 notrack",
		"ip saddr { 10.43.0.10 } udp sport 53 notrack",
		"ip daddr { 10.43.0.10 } tcp dport 53 notrack",
		"ip saddr { 10.43.0.10 } tcp sport 53 notrack",
		"ip6 daddr { fd43::a } udp dport 53 notrack",
		"ip6 saddr { fd43::a } udp sport 53 notrack",
		"ip6 daddr { fd43::a } tcp dport 53 notrack",
		"ip6 saddr { fd43::a } tcp sport 53 notrack",
	}
	if got := conntrackRules(addrs, 53); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
