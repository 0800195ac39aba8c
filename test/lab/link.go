package lab

import (
	"fmt"
)

// Link is what joins two sites, or a site to all others. It can be cut and healed; both are silent, as a dead line of a provider is: no
// interface loses its carrier, packets vanish.
type Link struct {
	lab  *Lab
	site *Site
	far  *Site // nil: all others
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
		return k.site.ns.Nft(fmt.Sprintf("%s element ip lab down { %q }", verb, wanCable))
	}
	return k.site.ns.Nft(fmt.Sprintf("%s element ip lab cut { %s, %s }", verb, k.far.Network(), k.far.WAN()))
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
	link, err := k.site.ns.Links().LinkByName(wanCable)
	k.lab.must("count bytes", err)
	s := link.Attrs().Statistics
	return traffic(s.TxBytes, s.RxBytes, s.TxPackets, s.RxPackets)
}

// ethernetHeader is what an interface counts beside each IP packet, in bytes.
const ethernetHeader = 14

func traffic(sent, received, packetsSent, packetsReceived uint64) Traffic {
	return Traffic{
		Sent: sent - ethernetHeader*packetsSent, Received: received - ethernetHeader*packetsReceived,
		PacketsSent: packetsSent, PacketsReceived: packetsReceived,
	}
}
