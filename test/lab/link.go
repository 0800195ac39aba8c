package lab

import (
	"fmt"

	"github.com/kedge-io/kedge/test/lab/slowlink"
)

// Link is what joins two sites, or a site to all others. It can be cut and healed; both are silent, as a dead line of a provider is: no
// interface loses its carrier, packets vanish.
type Link struct {
	lab  *Lab
	site *Site
	far  *Site          // nil: all others
	slow *slowlink.Line // nil: as fast as the machine
}

// Link is the connection between two sites. Cutting it leaves their connections to third ones alone.
func (l *Lab) Link(a, b *Site) *Link { return &Link{lab: l, site: a, far: b} }

// Cut drops every packet in both directions until Heal.
func (k *Link) Cut() {
	k.lab.t.Helper()
	k.lab.must("cut "+k.String(), k.change("add"))
}

// Heal ends a cut.
func (k *Link) Heal() {
	k.lab.t.Helper()
	k.lab.must("heal "+k.String(), k.change("delete"))
}

// String names the link.
func (k *Link) String() string {
	if k.far == nil {
		return "uplink of " + k.site.name
	}
	return "link between " + k.site.name + " and " + k.far.name
}

func (k *Link) change(verb string) error {
	if k.far == nil {
		return k.site.ns.Nft(fmt.Sprintf("%s element ip lab down { %q, %q }", verb, wanCable, wanSlow))
	}
	return k.site.ns.Nft(fmt.Sprintf("%s element ip lab cut { %s, %s }", verb, k.far.Network(), k.far.WAN()))
}

// Slow makes an uplink a slow line for good; a further call changes how slow. Packets pass through the test process, so a quick
// line is better left alone.
func (k *Link) Slow(q slowlink.Quality) {
	k.lab.t.Helper()
	if k.far != nil {
		k.lab.t.Fatalf("slow %s: only an uplink can be slow", k)
	}
	if k.slow != nil {
		k.slow.Change(q)
		return
	}
	hub := k.site.hubCable() + "slow"
	line, err := slowlink.New(k.site.ns, wanSlow, k.lab.hub, hub, q)
	k.lab.must("slow "+k.String(), err)
	k.slow = line
	k.lab.must("slow "+k.String(), k.lab.hub.Address(hub, hubIP+"/32"))
	k.lab.must("slow "+k.String(), k.site.routeThrough(wanSlow, hub))
}

// Traffic is how much passed an interface.
type Traffic struct {
	// Sent and Received are bytes of IP packets, headers included.
	Sent, Received uint64
	// PacketsSent and PacketsReceived count them.
	PacketsSent, PacketsReceived uint64
}

// Since is what passed after an earlier reading.
func (t Traffic) Since(earlier Traffic) Traffic {
	return Traffic{
		Sent: t.Sent - earlier.Sent, Received: t.Received - earlier.Received,
		PacketsSent: t.PacketsSent - earlier.PacketsSent, PacketsReceived: t.PacketsReceived - earlier.PacketsReceived,
	}
}

// Total is both directions, in bytes.
func (t Traffic) Total() uint64 { return t.Sent + t.Received }

// Bytes is what the site of an uplink has exchanged with all other sites. For the link of two sites count at a node.
func (k *Link) Bytes() Traffic {
	k.lab.t.Helper()
	name, header := wanCable, uint64(ethernetHeader)
	if k.slow != nil {
		name, header = wanSlow, 0
	}
	link, err := k.site.ns.Links().LinkByName(name)
	k.lab.must("count bytes", err)
	s := link.Attrs().Statistics
	return traffic(header, s.TxBytes, s.RxBytes, s.TxPackets, s.RxPackets)
}

// ethernetHeader is what an interface counts beside each IP packet, in bytes.
const ethernetHeader = 14

func traffic(header, sent, received, packetsSent, packetsReceived uint64) Traffic {
	return Traffic{
		Sent: sent - header*packetsSent, Received: received - header*packetsReceived,
		PacketsSent: packetsSent, PacketsReceived: packetsReceived,
	}
}
