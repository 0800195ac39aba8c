package lab

import (
	"fmt"

	"github.com/kedge-io/kedge/test/lab/netns"
)

// Site is a place with a local network and a router.
type Site struct {
	lab    *Lab
	name   string
	number int
	nat    bool
	ns     *netns.Namespace // the router, with the bridge of the local network in it
	uplink *Link
	nodes  []*Node
}

// Names of interfaces. Those of the router towards the hub begin with wan.
const (
	lanBridge = "lan"
	wanCable  = "wan0"
	wanSlow   = "wan1" // instead of wanCable, when the uplink is slow
	hubIP     = "203.0.113.254"
)

// AddSite makes a site whose network the other sites' routers know.
func (l *Lab) AddSite(name string) *Site {
	l.t.Helper()
	return l.addSite(name, false)
}

// AddSiteBehindNAT makes a site that reaches the others under its router's address, and that nothing reaches.
func (l *Lab) AddSiteBehindNAT(name string) *Site {
	l.t.Helper()
	return l.addSite(name, true)
}

func (l *Lab) addSite(name string, nat bool) *Site {
	l.t.Helper()
	s := &Site{lab: l, name: name, number: len(l.sites) + 1, nat: nat}
	var err error
	s.ns, err = netns.New()
	l.must("add site "+name, err)
	l.sites = append(l.sites, s)
	s.uplink = &Link{lab: l, site: s}
	l.must("add site "+name, s.connect())
	return s
}

// connect makes the local network and the cable to the hub.
func (s *Site) connect() error {
	steps := []func() error{
		func() error { return s.ns.Sysctl("ipv4/ip_forward", "1") },
		func() error { return s.ns.Sysctl("ipv6/conf/default/disable_ipv6", "1") },
		func() error { return s.ns.Bridge(lanBridge) },
		func() error { return s.ns.Address(lanBridge, s.Gateway()+"/24") },
		func() error { return s.ns.Veth(wanCable, s.lab.hub, s.hubCable()) },
		func() error { return s.lab.hub.Address(s.hubCable(), hubIP+"/32") },
		func() error { return s.ns.Nft(routerRules(s.nat)) },
		func() error { return s.routeThrough(wanCable, s.hubCable()) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// routeThrough sends what passes between site and hub through a pair of interfaces. The hub knows the way to a network behind NAT no
// more than the internet does.
func (s *Site) routeThrough(wan, hub string) error {
	if err := s.ns.Address(wan, s.WAN()+"/32"); err != nil {
		return err
	}
	if err := s.ns.Route("default", wan, hubIP); err != nil {
		return err
	}
	if err := s.lab.hub.Route(s.WAN()+"/32", hub, ""); err != nil {
		return err
	}
	if s.nat {
		return nil
	}
	return s.lab.hub.Route(s.Network(), hub, s.WAN())
}

func (s *Site) hubCable() string { return fmt.Sprintf("site%d", s.number) }

// Network is the site's local network, as 172.20.1.0/24.
func (s *Site) Network() string { return fmt.Sprintf("172.20.%d.0/24", s.number) }

// Gateway is the router's address in the local network.
func (s *Site) Gateway() string { return fmt.Sprintf("172.20.%d.1", s.number) }

// WAN is the router's address outside, under which a site behind NAT is seen.
func (s *Site) WAN() string { return fmt.Sprintf("203.0.113.%d", s.number) }

// Uplink is the site's cable to all other sites.
func (s *Site) Uplink() *Link { return s.uplink }

// routerRules let a test cut off single sites by address (set cut) and everything (set down), and translate addresses if asked.
func routerRules(nat bool) string {
	rules := `
add table ip lab
add set ip lab cut { type ipv4_addr; flags interval; }
add set ip lab down { type ifname; }
add chain ip lab arriving { type filter hook prerouting priority raw; }
add rule ip lab arriving ip saddr @cut drop
add rule ip lab arriving ip daddr @cut drop
add rule ip lab arriving iifname @down drop
add chain ip lab leaving { type filter hook postrouting priority 300; }
add rule ip lab leaving oifname @down drop
`
	if nat {
		rules += `
add chain ip lab source { type nat hook postrouting priority srcnat; }
add rule ip lab source oifname "wan*" masquerade
add chain ip lab through { type filter hook forward priority filter; }
add rule ip lab through iifname "wan*" ct state new drop
`
	}
	return rules
}
