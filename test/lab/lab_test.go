package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab/slowlink"
	"github.com/kedge-io/kedge/test/vm/control"
)

// TestMachines looks at machines without kedge: what is their own and what outlives a reboot.
func TestMachines(t *testing.T) {
	l := New(t)
	a := l.AddSite("a").AddNode("a1", Server())
	for _, c := range []struct{ command, want string }{
		{"hostname", "a1"},
		{"head -n1 /proc/self/cgroup | cut -d: -f3", "/"},
		{"ls /run; ls /var/lib; ls /root", ""},
		{"touch /usr/x 2>&1", "touch: cannot touch '/usr/x': Read-only file system"},
		{"ip -o -4 addr show dev eth0 | awk '{print $4}'", "172.20.1.11/24"},
		{"mkdir -p /etc/kedge && echo kept > /etc/kedge/x && echo kept > /var/lib/x && echo lost > /run/x", ""},
		{"date -s @$(date +%s) >/dev/null 2>&1 || echo refused", "refused"},
		{"unshare -m true && mount -t tmpfs x /mnt && umount /mnt", ""},
	} {
		if got, err := a.Run("sh", "-c", c.command+"; true"); strings.TrimSpace(got) != c.want || err != nil {
			t.Errorf("%s: %q, want %q, %v", c.command, got, c.want, err)
		}
	}
	if text, err := os.ReadFile(a.HostPath("/etc/kedge/x")); string(text) != "kept\n" {
		t.Errorf("seen from the host: %q, %v", text, err)
	}
	if _, err := os.Stat("/etc/kedge/x"); err == nil {
		t.Error("the host's /etc was changed")
	}
	a.Exec("sh", "-c", "setsid sleep 1000 & echo started")
	a.Reboot()
	if got := a.Exec("sh", "-c", "cat /etc/kedge/x /var/lib/x; ls /run; pgrep sleep; true"); got != "kept\nkept" {
		t.Errorf("after the reboot: %q", got)
	}
	var exit *control.ExitError
	if _, err := a.Run("sh", "-c", "exit 7"); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("exit code: %v", err)
	}
}

// reaches says whether a machine gets an answer from another one.
func reaches(from, to *Node) bool {
	_, err := from.Run("busybox", "ping", "-c1", "-W1", to.IP())
	return err == nil
}

// TestNetwork walks through the roads between sites: routed, behind NAT, cut, unplugged.
func TestNetwork(t *testing.T) {
	l := New(t)
	town, shop, farm := l.AddSite("town"), l.AddSite("shop"), l.AddSiteBehindNAT("farm")
	s, a, b := town.AddNode("s", Server()), shop.AddNode("a", Agent()), farm.AddNode("b", Agent())
	b2 := farm.AddNode("b2", Agent())
	expect := func(when string, from, to *Node, want bool) {
		t.Helper()
		// A road that opens needs the neighbor tables of both ends; one that is closed is closed at once.
		if want {
			l.Await(when+": "+from.Name()+" reaches "+to.Name(), 10*time.Second, func() error {
				if !reaches(from, to) {
					return errors.New("no answer")
				}
				return nil
			})
		} else if reaches(from, to) {
			t.Errorf("%s: %s reaches %s", when, from.Name(), to.Name())
		}
	}
	expect("at first", s, a, true)
	expect("at first", a, s, true)
	expect("at first", b, b2, true)
	expect("at first", b, s, true)
	expect("at first", s, b, false)

	link := l.Link(town, farm)
	link.Cut()
	expect("cut", b, s, false)
	expect("cut", b, a, true)
	expect("cut", a, s, true)
	link.Heal()
	expect("healed", b, s, true)

	shop.Uplink().Cut()
	expect("uplink cut", a, s, false)
	expect("uplink cut", s, a, false)
	shop.Uplink().Heal()
	expect("uplink healed", s, a, true)

	a.Unplug()
	expect("unplugged", s, a, false)
	a.Plug()
	expect("plugged", s, a, true)
	a.Reboot()
	expect("rebooted", s, a, true)
}

// TestNATAndBytes sees the router's address instead of the machine's, and counts what passes.
func TestNATAndBytes(t *testing.T) {
	l := New(t)
	s, farm := l.AddSite("town").AddNode("s", Server()), l.AddSiteBehindNAT("farm")
	b := farm.AddNode("b", Agent())
	listener, err := s.Listen("tcp", s.IP()+":7000")
	l.must("listen", err)
	defer func() { _ = listener.Close() }()
	const size = 1 << 20
	before, beforeUplink := b.Bytes(), farm.Uplink().Bytes()
	sent := make(chan error, 1)
	go func() {
		conn, err := b.Dial(t.Context(), "tcp", listener.Addr().String())
		if err == nil {
			_, err = conn.Write(make([]byte, size))
			err = errors.Join(err, conn.Close())
		}
		sent <- err
	}()
	conn, err := listener.Accept()
	l.must("accept", err)
	n, err := io.Copy(io.Discard, conn)
	if n != size || err != nil || <-sent != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	if host, _, _ := net.SplitHostPort(conn.RemoteAddr().String()); host != farm.WAN() {
		t.Errorf("came from %s, want %s", host, farm.WAN())
	}
	for name, got := range map[string]Traffic{"node": b.Bytes().Since(before), "uplink": farm.Uplink().Bytes().Since(beforeUplink)} {
		if got.Sent < size || got.Sent > size*11/10 || got.Received > size/10 {
			t.Errorf("%s counted %+v for %d bytes", name, got, size)
		}
	}
}

// TestSlowLine measures a round trip over a line with a delay, and that a cut holds there too.
func TestSlowLine(t *testing.T) {
	l := New(t)
	s, farm := l.AddSite("town").AddNode("s", Server()), l.AddSiteBehindNAT("farm")
	b := farm.AddNode("b", Agent())
	listener, err := s.Listen("tcp", s.IP()+":7000")
	l.must("listen", err)
	defer func() { _ = listener.Close() }()
	connect := func() time.Duration {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := b.Dial(ctx, "tcp", listener.Addr().String())
		l.must("connect", err)
		_ = conn.Close()
		return time.Since(begin)
	}
	quick := connect()
	farm.Uplink().Slow(slowlink.Quality{Delay: 100 * time.Millisecond})
	before := farm.Uplink().Bytes()
	slow := connect()
	if slow < 200*time.Millisecond || quick > 100*time.Millisecond {
		t.Errorf("one round trip took %v, and %v with 100 ms of delay", quick, slow)
	}
	if got := farm.Uplink().Bytes().Since(before); got.Sent < 100 || got.Sent > 1000 {
		t.Errorf("a connection cost %+v", got)
	}
	farm.Uplink().Cut()
	if reaches(b, s) {
		t.Error("reached over a cut line")
	}
	farm.Uplink().Heal()
	farm.Uplink().Slow(slowlink.Quality{Loss: 1})
	if reaches(b, s) {
		t.Error("reached over a line that loses everything")
	}
}

// TestDeadRunsAreRemoved leaves a directory as a killed test would.
func TestDeadRunsAreRemoved(t *testing.T) {
	l := New(t)
	dead := l.dir + "-dead"
	l.must("make a dead run", os.Mkdir(dead, 0o755))
	New(t)
	if _, err := os.Stat(dead); err == nil {
		t.Error("the dead run is still there")
	}
	if _, err := os.Stat(l.dir); err != nil {
		t.Error("the living run is gone")
	}
	start := time.Now()
	l.Await("nothing", time.Second, func() error { return nil })
	if time.Since(start) > time.Second {
		t.Error("waited for nothing")
	}
}
