package dns

import (
	"net/netip"
	"slices"
	"testing"
)

func TestChooseUpstreams(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.43.0.10"), netip.MustParseAddr("fd43::a")}
	for _, c := range []struct {
		name, resolvConf, systemd string
		want                      []string
	}{
		{"plain", "nameserver 192.168.1.1\nnameserver 192.168.1.2\n", "", []string{"192.168.1.1", "192.168.1.2"}},
		{"order and duplicates", "nameserver 9.9.9.9\nnameserver 1.0.0.1\nnameserver 9.9.9.9\n", "", []string{"9.9.9.9", "1.0.0.1"}},
		{"comments and noise", "# nameserver 1.1.1.1\n; nameserver 8.8.8.8\nsearch lan\nnameserver\nnameserver x\n\nnameserver\t10.0.0.1 # x\n", "", []string{"10.0.0.1"}},
		{"empty is never a public server", "", "", nil},
		{"no file but systemd's", "", "nameserver 10.0.0.2\n", nil},
		{"systemd stub", "nameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.2\n", []string{"10.0.0.2"}},
		{"systemd stub without servers", "nameserver 127.0.0.53\n", "", []string{"127.0.0.53"}},
		{"local dnsmasq", "nameserver 127.0.0.1\n", "", []string{"127.0.0.1"}},
		{"v6 loopback", "nameserver ::1\n", "nameserver fe80::1%eth0\n", []string{"fe80::1%eth0"}},
		{"loopback and real, in order", "nameserver 127.0.0.1\nnameserver 10.0.0.1\n", "", []string{"127.0.0.1", "10.0.0.1"}},
		{"never itself", "nameserver 10.43.0.10\nnameserver fd43::a\nnameserver 10.0.0.1\n", "", []string{"10.0.0.1"}},
		{"only itself", "nameserver 10.43.0.10\n", "nameserver 10.0.0.1\n", nil},
		{"mapped and unspecified", "nameserver ::ffff:10.0.0.1\nnameserver 0.0.0.0\n", "", []string{"10.0.0.1"}},
	} {
		got := chooseUpstreams(hostResolvers{[]byte(c.resolvConf), []byte(c.systemd)}, own)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestChooseUpstreamsIsBounded(t *testing.T) {
	var conf []byte
	for i := range 30 {
		conf = append(conf, "nameserver "+netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()+"\n"...)
	}
	if got := chooseUpstreams(hostResolvers{resolvConf: conf}, nil); len(got) != maxUpstreams {
		t.Errorf("got %d upstreams, want %d", len(got), maxUpstreams)
	}
}

func TestPodResolvConf(t *testing.T) {
	cluster := []netip.Addr{netip.MustParseAddr("10.43.0.10")}
	for _, c := range []struct{ name, resolvConf, systemd, want string }{
		{"real server", "search lan\nnameserver 10.0.0.1\noptions ndots:2\n", "", "nameserver 10.0.0.1\nsearch lan\noptions ndots:2\n"},
		{"loopback only", "nameserver 127.0.0.1\nsearch lan\n", "", "nameserver 10.43.0.10\nsearch lan\n"},
		{"systemd stub", "nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n", "nameserver 10.0.0.2\n"},
		{"nothing", "", "", "nameserver 10.43.0.10\n"},
	} {
		got := podResolvConf(hostResolvers{[]byte(c.resolvConf), []byte(c.systemd)}, cluster)
		if string(got) != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
