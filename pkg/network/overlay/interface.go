package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/vishvananda/netlink"

	"github.com/kedge-io/kedge/pkg/peers"
)

// outside is the interface by which the other nodes are reached.
type outside struct {
	iface    *net.Interface
	networks []netip.Prefix // that it is on
}

// findOutside returns the interface of a name, or the one with the node's address.
func findOutside(name string, nodeIPs []netip.Addr) (outside, error) {
	all, err := net.Interfaces()
	if err != nil {
		return outside{}, fmt.Errorf("list interfaces: %w", err)
	}
	for i := range all {
		if name == "" && all[i].Flags&net.FlagLoopback != 0 {
			continue // it holds the address of a node whose cable is out
		}
		networks, err := addressesOf(&all[i])
		if err != nil {
			continue // it has just gone
		}
		has := func(a netip.Addr) bool {
			return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Addr() == a })
		}
		if name != "" && all[i].Name == name || name == "" && slices.ContainsFunc(nodeIPs, has) {
			return outside{&all[i], networks}, nil
		}
	}
	if name != "" {
		return outside{}, fmt.Errorf("--flannel-iface: there is no interface %s", name)
	}
	return outside{}, fmt.Errorf("no interface has the node's address %v: correct --node-ip or name the interface with --flannel-iface", nodeIPs)
}

// addressesOf lists the addresses of an interface with the lengths of their networks.
func addressesOf(i *net.Interface) ([]netip.Prefix, error) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
		}
	}
	return out, nil
}

// local chooses the interface's own address of a family: one of the node's addresses if it has one, else its first.
func (o outside) local(nodeIPs []netip.Addr, four bool) netip.Addr {
	var first netip.Addr
	for _, p := range o.networks {
		a := p.Addr()
		if a.Is4() != four || !a.IsGlobalUnicast() {
			continue
		}
		if slices.Contains(nodeIPs, a) {
			return a
		}
		if !first.IsValid() {
			first = a
		}
	}
	return first
}

// external turns it into flannel's form: public are the addresses that others send to, where these are not the interface's own.
func (o outside) external(nodeIPs, public []netip.Addr) *backend.ExternalInterface {
	e := &backend.ExternalInterface{Iface: o.iface, IfaceName: o.iface.Name}
	if a := o.local(nodeIPs, true); a.IsValid() {
		e.IfaceAddr, e.ExtAddr = a.AsSlice(), a.AsSlice()
	}
	if a := o.local(nodeIPs, false); a.IsValid() {
		e.IfaceV6Addr, e.ExtV6Addr = a.AsSlice(), a.AsSlice()
	}
	for _, a := range public {
		if a.Is4() {
			e.ExtAddr = a.AsSlice()
		} else {
			e.ExtV6Addr = a.AsSlice()
		}
	}
	return e
}

// What a backend puts around each packet, in bytes.
const (
	vxlanV4Overhead   = 20 + 8 + 8 + 14
	vxlanV6Overhead   = 40 + 8 + 8 + 14
	wireguardOverhead = 80
	unknownMTU        = 1400 // of pods, when nothing is known yet
)

// podMTU is the longest packet of a pod that fits through an interface. six says that packets may travel over IPv6.
func podMTU(backendName string, ifaceMTU int, six bool) int {
	switch {
	case backendName == peers.WireGuard:
		return ifaceMTU - wireguardOverhead
	case backendName == peers.VXLAN && six:
		return ifaceMTU - vxlanV6Overhead
	case backendName == peers.VXLAN:
		return ifaceMTU - vxlanV4Overhead
	}
	return ifaceMTU
}

// devices are the interfaces that a backend makes.
func devices(backendName string) []string {
	switch backendName {
	case peers.VXLAN:
		return []string{"flannel.1", "flannel-v6.1"}
	case peers.WireGuard:
		return []string{"flannel-wg", "flannel-wg-v6"}
	}
	return nil
}

// removeOthers removes the interfaces that an earlier backend left.
func removeOthers(backendName string) error {
	var errs error
	for _, other := range []string{peers.VXLAN, peers.WireGuard} {
		if other == backendName {
			continue
		}
		for _, name := range devices(other) {
			link, err := netlink.LinkByName(name)
			if err != nil {
				continue
			}
			if err := netlink.LinkDel(link); err != nil {
				errs = errors.Join(errs, fmt.Errorf("remove interface %s: %w", name, err))
			}
		}
	}
	return errs
}
