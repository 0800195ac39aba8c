package overlay

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"

	"github.com/kedge-io/kedge/pkg/peers"
)

func prefixes(in ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range in {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func node(name, cidr, public string) peers.Peer {
	return peers.Peer{
		Node: name, CIDRs: prefixes(cidr), Backend: peers.VXLAN, PublicIP: netip.MustParseAddr(public),
		Data: []byte(`{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`),
	}
}

func byName(all ...peers.Peer) map[string]peers.Peer {
	out := map[string]peers.Peer{}
	for _, p := range all {
		out[p.Node] = p
	}
	return out
}

func TestDiff(t *testing.T) {
	a, b, moved := node("a", "10.42.1.0/24", "10.0.0.1"), node("b", "10.42.2.0/24", "10.0.0.2"), node("a", "10.42.1.0/24", "10.0.0.9")
	got := diff(byName(a, b), byName(moved))
	want := []change{{a, true}, {b, true}, {moved, false}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if !got[i].peer.Equal(want[i].peer) || got[i].gone != want[i].gone {
			t.Errorf("step %d: %+v", i, got[i])
		}
	}
	if len(diff(byName(a), byName(a))) != 0 {
		t.Error("something changed in nothing")
	}
}

func TestReachable(t *testing.T) {
	own := node("own", "10.42.0.0/24", "10.0.0.1")
	thief, other := node("thief", "10.42.0.0/16", "10.0.0.3"), node("other", "10.42.3.0/24", "10.0.0.4")
	other.Backend = peers.WireGuard
	near, far := node("near", "10.42.1.0/24", "10.0.0.2"), node("far", "10.42.2.0/24", "10.9.0.2")
	all := byName(own, thief, other, near, far)
	if got := reachable(own, all, nil); len(got) != 2 || got["near"].Node == "" || got["far"].Node == "" {
		t.Errorf("with vxlan: %v", got)
	}
	for name, p := range all {
		p.Backend = peers.HostGW
		all[name] = p
	}
	delete(all, "other")
	own.Backend = peers.HostGW
	if got := reachable(own, all, prefixes("10.0.0.1/24")); len(got) != 1 || got["near"].Node == "" {
		t.Errorf("with routes: %v", got)
	}
}

func TestNote(t *testing.T) {
	own, near, farm := node("own", "10.42.0.0/24", "10.0.0.1"), node("near", "10.42.1.0/24", "10.0.0.2"), node("farm", "10.42.2.0/24", "192.168.1.2")
	farm.Seen = netip.MustParseAddr("203.0.113.3")
	all := byName(own, near, farm)
	if got := note(own, all, reachable(own, all, nil)); got != "vxlan, 1 other nodes; an address translation lies between the pods here and those of farm" {
		t.Error(got)
	}
	if got := note(farm, all, reachable(farm, all, nil)); !strings.Contains(got, "0 other nodes; behind an address translation (203.0.113.3)") || !strings.Contains(got, "near, own") {
		t.Error(got)
	}
	if got := some([]string{"a", "b", "c", "d", "e", "f", "g"}); got != "a, b, c, d, e and 2 more" {
		t.Error(got)
	}
}

func TestPodMTU(t *testing.T) {
	for _, tc := range []struct {
		backend string
		six     bool
		want    int
	}{
		{peers.VXLAN, false, 1450}, {peers.VXLAN, true, 1430}, {peers.WireGuard, true, 1420}, {peers.HostGW, false, 1500},
	} {
		if got := podMTU(tc.backend, 1500, tc.six); got != tc.want {
			t.Errorf("%s: %d", tc.backend, got)
		}
	}
}

func newOverlay(t *testing.T, dir string) *Overlay {
	t.Helper()
	o, err := New(Config{
		NodeName: "own", Backend: peers.VXLAN, ClusterCIDRs: prefixes("10.42.0.0/16"), NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Dir: dir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWhatIsKnownOutlivesABoot(t *testing.T) {
	dir := t.TempDir()
	o := newOverlay(t, dir)
	if _, ok, _ := o.Own(); ok || len(o.PodCIDRs()) != 0 || o.MTU() != unknownMTU {
		t.Error("something is known at the first start")
	}
	own, near := node("own", "10.42.0.0/24", "192.0.2.1"), node("near", "10.42.1.0/24", "192.0.2.2")
	if err := o.SetPodCIDRs(own.CIDRs); err != nil {
		t.Fatal(err)
	}
	if _, err := o.announce(own); err != nil {
		t.Fatal(err)
	}
	if err := o.SetPeers([]peers.Peer{own, near}); err != nil {
		t.Fatal(err)
	}

	o = newOverlay(t, dir)
	if got, ok, _ := o.Own(); !ok || !got.Equal(own) {
		t.Errorf("own entry %+v, %v", got, ok)
	}
	if got, _ := o.peersNow(); len(got) != 1 || !got["near"].Equal(near) {
		t.Errorf("peers %v", got)
	}
	if got := o.mac(false); got != "12:c6:65:89:b4:e3" || o.mac(true) != "" {
		t.Errorf("interface address %q", got)
	}
}

func TestBackendHearsOfPeers(t *testing.T) {
	o := newOverlay(t, t.TempDir())
	own, near := node("own", "10.42.0.0/24", "192.0.2.1"), node("near", "10.42.1.0/24", "192.0.2.2")
	if err := o.SetPodCIDRs(own.CIDRs); err != nil {
		t.Fatal(err)
	}
	m := &manager{overlay: o, config: &subnet.Config{EnableIPv4: true}}
	attrs := toLease(own).Attrs
	l, err := m.AcquireLease(t.Context(), &attrs)
	if err != nil || l.Subnet.String() != "10.42.0.0/24" || !l.EnableIPv4 || l.EnableIPv6 {
		t.Fatalf("lease %+v, %v", l, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	results, ended := make(chan []lease.LeaseWatchResult), make(chan error, 1)
	go func() { ended <- m.WatchLeases(ctx, results) }()
	next := func() []lease.Event {
		t.Helper()
		select {
		case r := <-results:
			return r[0].Events
		case <-time.After(time.Minute):
			t.Fatal("heard nothing")
			return nil
		}
	}
	for _, step := range []struct {
		peers []peers.Peer
		want  string
	}{
		{[]peers.Peer{own, near}, "0 192.0.2.2"},
		{[]peers.Peer{own, node("near", "10.42.1.0/24", "192.0.2.3")}, "1 192.0.2.2,0 192.0.2.3"},
		{nil, "1 192.0.2.3"},
	} {
		if err := o.SetPeers(step.peers); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range next() {
			got = append(got, string('0'+rune(e.Type))+" "+e.Lease.Attrs.PublicIP.String())
		}
		if strings.Join(got, ",") != step.want {
			t.Errorf("heard %v instead of %s", got, step.want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestInterfaceIsFound(t *testing.T) {
	if out, err := findOutside("lo", nil); err != nil || out.iface.Name != "lo" {
		t.Errorf("%v, %v", out, err)
	}
	// It may hold the address of a node whose cable is out, and nothing behind it can be reached.
	if out, err := findOutside("", []netip.Addr{netip.MustParseAddr("127.0.0.1")}); err == nil || !strings.Contains(err.Error(), "no interface has") {
		t.Errorf("%v, %v", out, err)
	}
	for name, want := range map[string]string{"nothere0": "--flannel-iface", "": "--node-ip"} {
		if _, err := findOutside(name, []netip.Addr{netip.MustParseAddr("192.0.2.77")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
