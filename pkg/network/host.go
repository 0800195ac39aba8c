package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// PrepareHost loads the kernel modules and sets the sysctls that pods and Services need.
// A module that cannot be loaded may be built in, so only a missing sysctl is an error.
func PrepareHost(log *slog.Logger, ipv6 bool) error {
	for _, m := range []string{"overlay", "br_netfilter", "nf_conntrack", "nf_tables", "vxlan"} {
		if out, err := exec.Command("modprobe", m).CombinedOutput(); err != nil {
			log.Debug("load kernel module", "module", m, "error", err, "output", strings.TrimSpace(string(out)))
		}
	}
	settings := map[string]string{
		"net/ipv4/ip_forward":                "1",
		"net/bridge/bridge-nf-call-iptables": "1",
	}
	if ipv6 {
		settings["net/ipv6/conf/all/forwarding"] = "1"
		settings["net/bridge/bridge-nf-call-ip6tables"] = "1"
	}
	for key, want := range settings {
		if err := setSysctl(key, want); err != nil {
			return fmt.Errorf("set sysctl %s to %s: %w", strings.ReplaceAll(key, "/", "."), want, err)
		}
	}
	return nil
}

// setSysctl writes want only where it differs, because /proc/sys may be read-only with the right value in it.
func setSysctl(key, want string) error {
	path := filepath.Join("/proc/sys", key)
	have, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(have)) == want {
		return nil
	}
	return os.WriteFile(path, []byte(want), 0o644)
}

// ErrNoAddress says that no interface of this host carries an address a node can be known by.
var ErrNoAddress = errors.New("no usable address on any interface: give --node-ip")

// NodeAddress finds the address this node is known by, and keeps it in a file. Where there is none, it is that of the file: a machine that starts with its
// cable out often gets none, and its pods are to work all the same. The loopback interface holds it then, until another one has an address.
func NodeAddress(file string) (netip.Addr, error) {
	found, err := findAddress(0)
	if errors.Is(err, ErrNoAddress) {
		text, _ := os.ReadFile(file) // without it there is nothing to parse
		if kept, bad := netip.ParseAddr(strings.TrimSpace(string(text))); bad == nil && kept.IsGlobalUnicast() {
			if err := hold(kept); err != nil {
				return kept, fmt.Errorf("hold the address of the last start: %w", err)
			}
			return kept, nil
		}
		found, err = findAddress(net.FlagLoopback)
	}
	if err != nil {
		return found, err
	}
	return found, keepAddress(file, found)
}

func keepAddress(file string, a netip.Addr) error {
	if old, err := os.ReadFile(file); err == nil && string(old) == a.String() {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file+".new", []byte(a.String()), 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("keep the node's address: %w", err)
	}
	return nil
}

// heldLabel tells an IPv4 address that we put on the loopback interface from the operator's own; IPv6 knows no labels.
const heldLabel = "lo:kedge"

// held is an address as the loopback interface holds it.
func held(a netip.Addr) (netlink.Link, *netlink.Addr, error) {
	lo, err := netlink.LinkByName("lo")
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is4() {
		address.Label = heldLabel
	}
	return lo, address, err
}

func hold(a netip.Addr) error {
	lo, address, err := held(a)
	if err != nil {
		return err
	}
	return netlink.AddrReplace(lo, address)
}

// release undoes hold, when another interface has an address again. There is nothing to undo as a rule.
func release(a netip.Addr) {
	if _, err := findAddress(0); err != nil {
		return
	}
	lo, address, err := held(a)
	if err != nil {
		return
	}
	there, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err == nil && slices.ContainsFunc(there, func(t netlink.Addr) bool {
		return t.Label == address.Label && t.IPNet.String() == address.IPNet.String()
	}) {
		_ = netlink.AddrDel(lo, address) // or it is tried again
	}
}

// findAddress returns the address of the interface with the IPv4 default route, else the first global address of any interface that is up and not
// ours: of loopback interfaces, or of those that are none.
func findAddress(loopback net.Flags) (netip.Addr, error) {
	if a, ok := defaultRouteAddress(); ok {
		return a, nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		attrs := l.Attrs()
		if attrs.Flags&net.FlagUp == 0 || attrs.Flags&net.FlagLoopback != loopback || ownLink(attrs.Name) {
			continue
		}
		if a, ok := linkAddress(l); ok {
			return a, nil
		}
	}
	return netip.Addr{}, ErrNoAddress
}

func defaultRouteAddress() (netip.Addr, bool) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue
		}
		if a, ok := linkAddress(link); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func linkAddress(l netlink.Link) (netip.Addr, bool) {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && ip.IsGlobalUnicast() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// ownLink reports whether kedge or its pods made the interface.
func ownLink(name string) bool {
	return name == bridgeName || strings.HasPrefix(name, "veth") || strings.HasPrefix(name, "flannel") || strings.HasPrefix(name, "kedge")
}
