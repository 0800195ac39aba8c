// Package netns makes network namespaces that have no name and so end with the process that made them, and works inside them.
// Only test/lab may import it.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It lives as long as it is open or a process is in it.
type Namespace struct {
	file  *os.File
	links *netlink.Handle
}

// New makes an empty namespace whose loopback is up.
func New() (*Namespace, error) {
	var ns *Namespace
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		var err error
		ns, err = open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	return ns, ns.up("lo")
}

// OfProcess opens the namespace of a process and sets its loopback up.
func OfProcess(pid int) (*Namespace, error) {
	ns, err := open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	return ns, ns.up("lo")
}

func open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	links, err := netlink.NewHandleAt(vnetns.NsHandle(f.Fd()))
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open netlink in namespace: %w", err)
	}
	return &Namespace{file: f, links: links}, nil
}

// Links is netlink inside the namespace.
func (n *Namespace) Links() *netlink.Handle { return n.links }

// FD is the namespace's file descriptor, valid until Close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Close lets go of the namespace.
func (n *Namespace) Close() {
	n.links.Close()
	_ = n.file.Close()
}

// Do runs f on a thread that is in the namespace. What f starts in other goroutines is outside.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f, which changes namespaces, on a thread of its own and brings the thread back afterwards. Letting the thread end
// instead would do, but not for the process's first thread, which Go keeps, and which would keep the namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer func() { _ = home.Close() }()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("come back from network namespace: %w", back))
			return // still locked: the thread ends with the goroutine
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// Sysctl sets a value below /proc/sys/net, named with slashes, as in ipv4/ip_forward.
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644); err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
		return nil
	})
}

// Nft loads nftables rules.
func (n *Namespace) Nft(rules string) error {
	return n.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("load nftables rules: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// Veth makes a pair of interfaces, one here and one in other, and sets both up.
func (n *Namespace) Veth(name string, other *Namespace, otherName string) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: otherName, PeerNamespace: netlink.NsFd(other.FD()),
	}
	if err := n.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth %s: %w", name, err)
	}
	if err := n.up(name); err != nil {
		return err
	}
	return other.up(otherName)
}

// Bridge makes a bridge, or puts an interface on it when it is there.
func (n *Namespace) Bridge(name string, ports ...string) error {
	bridge, err := n.links.LinkByName(name)
	if err != nil {
		bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := n.links.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make bridge %s: %w", name, err)
		}
	}
	for _, p := range ports {
		port, err := n.links.LinkByName(p)
		if err != nil {
			return fmt.Errorf("find bridge port %s: %w", p, err)
		}
		if err := n.links.LinkSetMaster(port, bridge); err != nil {
			return fmt.Errorf("put %s on bridge %s: %w", p, name, err)
		}
	}
	return n.up(name)
}

func (n *Namespace) up(name string) error { return n.SetUp(name, true) }

// SetUp sets an interface up or down; the other end of a veth loses its carrier with it.
func (n *Namespace) SetUp(name string, up bool) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	set := n.links.LinkSetUp
	if !up {
		set = n.links.LinkSetDown
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set interface %s up or down: %w", name, err)
	}
	return nil
}

// Delete removes an interface, and with it the other end of a veth.
func (n *Namespace) Delete(name string) error {
	link, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// Address gives an interface an address with prefix length, as 172.20.1.1/24.
func (n *Namespace) Address(name, cidr string) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("address %s: %w", cidr, err)
	}
	if err := n.links.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, cidr, err)
	}
	return nil
}

// Route sends dst, a prefix or "default", through an interface to a gateway that needs no route of its own. An empty gateway
// means that dst is on the interface itself.
func (n *Namespace) Route(dst, name, gateway string) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK}
	if dst == "default" {
		dst = "0.0.0.0/0"
	}
	if _, r.Dst, err = net.ParseCIDR(dst); err != nil {
		return fmt.Errorf("route to %s: %w", dst, err)
	}
	if gateway != "" {
		r.Gw, r.Flags, r.Scope = net.ParseIP(gateway), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
	}
	if err := n.links.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s through %s: %w", dst, name, err)
	}
	return nil
}
