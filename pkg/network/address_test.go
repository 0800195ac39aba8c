package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
