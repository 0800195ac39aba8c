package vm

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Uplink is what the guest's first network card, at 10.0.2.15/24 with the default route, leads to.
type Uplink int

const (
	// Isolated has a gateway that answers but leads nowhere: an airgapped site.
	Isolated Uplink = iota
	// Internet leads outside through the host.
	Internet
	// NoUplink leaves the card out.
	NoUplink
)

// NIC is one more network card, on a segment with other guests.
type NIC struct {
	Segment *Segment
	Address string // with prefix length, as 10.90.1.11/24
	Gateway string // default route through this segment; empty for none
}

// Config describes a guest. The zero value with a Name is a small airgapped machine.
type Config struct {
	Name       string            // host name
	CPUs       int               // default 2
	MemMiB     int               // default 2048
	Uplink     Uplink            // first card
	NICs       []NIC             // further cards
	Files      map[string]string // guest path to host file; put in, with its mode, at the end of the first boot
	KernelArgs string            // added to the kernel command line
	Seed       uint64            // of the random part of power cuts; 0 chooses one and logs it
}

// uplinkLink is the name of the first card for LinkDown and LinkUp; the others are nic0, nic1 and so on.
const uplinkLink = "uplink"

// validate fills in defaults and names the field that is wrong.
func (c *Config) validate() error {
	if c.Name == "" {
		return fmt.Errorf("vm config: Name is empty: set the host name")
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.MemMiB == 0 {
		c.MemMiB = 2048
	}
	for i, n := range c.NICs {
		if n.Segment == nil {
			return fmt.Errorf("vm config: NICs[%d].Segment is nil: make one with NewSegment", i)
		}
		if _, err := netip.ParsePrefix(n.Address); err != nil {
			return fmt.Errorf("vm config: NICs[%d].Address: %w", i, err)
		}
	}
	for path := range c.Files {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("vm config: Files: %q is not an absolute guest path", path)
		}
	}
	return nil
}

// sockets are the file descriptor numbers in qemu of the sockets it inherits, so that no path, port or listener is needed.
type sockets struct {
	control, monitor, disk int
	nics                   []int
}

// qemuArgs is the command line after the program's name. The machine starts paused.
func qemuArgs(c Config, img Image, serialLog string, fd sockets) []string {
	kernel := fmt.Sprintf("console=ttyS0 loglevel=5 panic=-1 mitigations=off tsc=reliable net.ifnames=0 systemd.show_status=no systemd.journald.forward_to_console=1 systemd.hostname=%s %s",
		c.Name, c.KernelArgs)
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-S", "-name", c.Name,
		"-smp", fmt.Sprint(c.CPUs), "-m", fmt.Sprint(c.MemMiB),
		"-kernel", img.Kernel, "-initrd", img.Initrd, "-append", strings.TrimSpace(kernel),
		"-chardev", "file,id=serial,append=on,path=" + serialLog, "-serial", "chardev:serial",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fd.monitor), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=control,fd=%d", fd.control),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=kedge.vm",
		"-blockdev", fmt.Sprintf("driver=nbd,node-name=root,server.type=fd,server.str=%d,export=root", fd.disk),
		"-device", "virtio-blk-pci,drive=root,write-cache=on",
	}
	if c.Uplink != NoUplink {
		restrict := "on"
		if c.Uplink == Internet {
			restrict = "off"
		}
		args = append(args, "-netdev", "user,id="+uplinkLink+",ipv6=off,restrict="+restrict,
			"-device", "virtio-net-pci,netdev="+uplinkLink+",mac=52:54:00:00:00:01")
	}
	for i, n := range c.NICs {
		args = append(args,
			"-netdev", fmt.Sprintf("stream,id=nic%d,server=off,addr.type=fd,addr.str=%d", i, fd.nics[i]),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=nic%d,mac=%s", i, n.mac()))
	}
	return args
}

// mac derives the card's hardware address from its IPv4 address, which is unique on its segment.
func (n NIC) mac() string {
	a := netip.MustParsePrefix(n.Address).Addr().As4()
	return fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// unit is the systemd-networkd file for the card.
func (n NIC) unit() string {
	s := fmt.Sprintf("[Match]\nMACAddress=%s\n[Network]\nAddress=%s\nIPv6AcceptRA=no\n", n.mac(), n.Address)
	if n.Gateway != "" {
		s += "Gateway=" + n.Gateway + "\n"
	}
	return s
}
