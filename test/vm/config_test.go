package vm

import (
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

// TestQemuArgs compares the command lines with testdata; -update rewrites them.
func TestQemuArgs(t *testing.T) {
	img := Image{Kernel: "/img/vmlinuz", Initrd: "/img/initrd", Disk: "/img/base.img"}
	seg := &Segment{}
	cases := map[string]Config{
		"default": {Name: "one"},
		"rich": {Name: "two", CPUs: 4, MemMiB: 4096, Uplink: Internet, KernelArgs: "quiet",
			NICs: []NIC{{Segment: seg, Address: "10.90.1.11/24"}, {Segment: seg, Address: "10.90.2.11/24"}}},
		"no-uplink": {Name: "three", Uplink: NoUplink},
	}
	for name, c := range cases {
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		fd := sockets{control: 3, monitor: 4, disk: 5, nics: []int{6, 7}}
		got := strings.Join(qemuArgs(c, img, "/logs/serial.log", fd), "\n") + "\n"
		golden.Check(t, "qemu-"+name+".golden", got)
	}
}

func TestValidate(t *testing.T) {
	cases := map[string]Config{
		"Name":            {},
		"NICs[0].Segment": {Name: "a", NICs: []NIC{{Address: "10.0.0.1/8"}}},
		"NICs[0].Address": {Name: "a", NICs: []NIC{{Segment: &Segment{}, Address: "10.0.0.1"}}},
		"Files":           {Name: "a", Files: map[string]string{"relative": "x"}},
	}
	for field, c := range cases {
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("want an error naming %s, got %v", field, err)
		}
	}
}

func TestNICUnit(t *testing.T) {
	n := NIC{Address: "10.90.1.11/24", Gateway: "10.90.1.1"}
	want := "[Match]\nMACAddress=52:54:0a:5a:01:0b\n[Network]\nAddress=10.90.1.11/24\nIPv6AcceptRA=no\nGateway=10.90.1.1\n"
	if got := n.unit(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
