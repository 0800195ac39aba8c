package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// ensureAddresses makes the interface carry exactly the addresses. An interface that exists is adopted.
// A loopback address needs no interface.
func ensureAddresses(name string, addrs []netip.Addr) error {
	var want []netip.Addr
	for _, a := range addrs {
		if !a.IsLoopback() {
			want = append(want, a)
		}
	}
	if len(want) == 0 {
		return nil
	}
	link, err := ensureLink(name)
	if err != nil {
		return err
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	add, remove := addressChanges(want, have)
	for _, a := range remove {
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s from %s: %w", a.IPNet, name, err)
		}
	}
	for _, a := range add {
		host := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
		if a.Is6() {
			host.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, host); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to %s: %w", a, name, err)
		}
	}
	return nil
}

// ensureLink returns the interface, made and up.
func ensureLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		if err := createLink(name); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		if link, err = netlink.LinkByName(name); err != nil {
			return nil, fmt.Errorf("find interface %s: %w", name, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("bring up interface %s: %w", name, err)
		}
	}
	return link, nil
}

// createLink makes a dummy interface. A kernel without that driver gets a bridge without ports, which carries local
// addresses as well and which the pod network needs anyway.
func createLink(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return wrapUnlessNil("create dummy interface "+name, err)
	}
	return wrapUnlessNil("create bridge "+name+" (the kernel has no dummy driver)", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
}

func wrapUnlessNil(step string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}

// addressChanges compares the wanted addresses with those on the interface; link-local ones are the kernel's own.
func addressChanges(want []netip.Addr, have []netlink.Addr) (add []netip.Addr, remove []netlink.Addr) {
	present := map[netip.Addr]bool{}
	wanted := map[netip.Addr]bool{}
	for _, a := range want {
		wanted[a] = true
	}
	for _, h := range have {
		a, ok := netip.AddrFromSlice(h.IP)
		a = a.Unmap()
		if !ok || a.IsLinkLocalUnicast() {
			continue
		}
		if !wanted[a] {
			remove = append(remove, h)
		}
		present[a] = true
	}
	for _, a := range want {
		if !present[a] {
			add = append(add, a)
		}
	}
	return add, remove
}

// bypassConntrack keeps DNS packets of this node out of connection tracking. They need no translation, a busy
// resolver would fill the table, and kube-proxy drops new tracked connections from the host to Service addresses that
// it does not serve, which the DNS address is on purpose.
func bypassConntrack(ctx context.Context, addrs []netip.Addr, port int) error {
	nft, err := knftables.New(knftables.InetFamily, "kedge-dns")
	if err != nil {
		return fmt.Errorf("use nft: %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("DNS of this node, without connection tracking")})
	for _, hook := range []knftables.BaseChainHook{knftables.PreroutingHook, knftables.OutputHook} {
		tx.Add(&knftables.Chain{
			Name: string(hook), Type: knftables.PtrTo(knftables.FilterType),
			Hook: knftables.PtrTo(hook), Priority: knftables.PtrTo(knftables.RawPriority),
		})
	}
	for _, r := range conntrackRules(addrs, port) {
		tx.Add(&knftables.Rule{Chain: string(knftables.PreroutingHook), Rule: r})
		tx.Add(&knftables.Rule{Chain: string(knftables.OutputHook), Rule: r})
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("write nft table kedge-dns: %w", err)
	}
	return nil
}

// conntrackRules returns the nft rules for questions to and answers from the addresses.
func conntrackRules(addrs []netip.Addr, port int) []string {
	families := map[string][]string{}
	for _, a := range addrs {
		f := "ip"
		if a.Is6() {
			f = "ip6"
		}
		families[f] = append(families[f], a.String())
	}
	var rules []string
	for _, f := range []string{"ip", "ip6"} {
		if len(families[f]) == 0 {
			continue
		}
		set := "{ " + strings.Join(families[f], ", ") + " }"
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules,
				fmt.Sprintf("%s daddr %s %s dport %d notrack", f, set, proto, port),
				fmt.Sprintf("%s saddr %s %s sport %d notrack", f, set, proto, port))
		}
	}
	return rules
}
