package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kedge-io/kedge/test/plane"
)

// TestAddressIsKept looks for this machine's own address, and finds it in the file.
func TestAddressIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent", "node-ip")
	found, err := NodeAddress(file)
	if errors.Is(err, ErrNoAddress) {
		t.Skip("this machine has no address")
	}
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != found.String() {
		t.Errorf("found %s, kept %q, %v", found, text, err)
	}
}

func TestMoved(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, tc := range []struct {
		now     netip.Addr
		present []netip.Addr
		want    bool
	}{
		{a, []netip.Addr{a}, false},
		{b, []netip.Addr{b}, true},
		{b, []netip.Addr{a, b}, false}, // a second interface has the default route now; the node is where it was
		{a, nil, false},
	} {
		if got := moved(a, tc.now, tc.present); got != tc.want {
			t.Errorf("now %s of %v: %v", tc.now, tc.present, got)
		}
	}
	if all, err := present(); err != nil || !slices.Contains(all, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("%v holds no loopback address: %v", all, err)
	}
}

// TestAddressIsHeld boots with the cable out, and then has it again.
func TestAddressIsHeld(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	kept, own := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.9")
	file := filepath.Join(t.TempDir(), "node-ip")
	if err := keepAddress(file, kept); err != nil {
		t.Fatal(err)
	}
	if got, err := NodeAddress(file); err != nil || got != kept {
		t.Fatalf("with the cable out it is %s, %v", got, err)
	}
	operators, err := netlink.ParseAddr(own.String() + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, operators); err != nil {
		t.Fatal(err)
	}
	holds := func(a netip.Addr) bool {
		all, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		return err == nil && slices.ContainsFunc(all, func(l netlink.Addr) bool { return l.IP.Equal(a.AsSlice()) })
	}
	release(kept)
	if !holds(kept) {
		t.Fatal("released while no other interface has an address")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	up, address := &netlink.Bridge{LinkAttrs: attrs}, *operators
	address.IPNet = &net.IPNet{IP: kept.AsSlice(), Mask: net.CIDRMask(24, 32)}
	if err := errors.Join(netlink.LinkAdd(up), netlink.LinkSetUp(up), netlink.AddrAdd(up, &address)); err != nil {
		t.Fatal(err)
	}
	release(own)
	release(kept)
	if holds(kept) || !holds(own) {
		t.Errorf("lo holds the kept address: %t, the operator's own: %t", holds(kept), holds(own))
	}
}
