package scenario

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/vm"
)

const echoUnit = `[Service]
ExecStart=/usr/bin/systemd-socket-activate -l 7 -a --inetd cat
[Install]
WantedBy=multi-user.target
`

// not turns success into failure.
func not(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if do(ctx) == nil {
			return errors.New("they still talk")
		}
		return nil
	}
}

// TestSegment lets two machines talk over a segment and interrupts it in both ways.
func TestSegment(t *testing.T) {
	vm.Require(t)
	seg := vm.NewSegment(t)
	var guests []*vm.Guest
	for name, address := range map[string]string{"a": "10.90.1.11/24", "b": "10.90.1.12/24"} {
		g := vm.New(t, vm.Config{Name: name, CPUs: 1, MemMiB: 512, Uplink: vm.NoUplink, NICs: []vm.NIC{{Segment: seg, Address: address}}})
		g.Start()
		guests = append(guests, g)
	}
	for _, g := range guests {
		t.Logf("boot: %v", g.AwaitBoot().Round(100*time.Millisecond))
		g.WriteFile("/etc/systemd/system/echo.service", 0o644, echoUnit)
		g.MustRun("systemctl daemon-reload && systemctl enable --now echo.service")
	}
	talk := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		peer := "10.90.1.11:7"
		if guests[0].MustRun("hostname") == "a" {
			peer = "10.90.1.12:7"
		}
		conn, err := guests[0].Dial(ctx, "tcp", peer)
		if err != nil {
			return err
		}
		return echo(conn)
	}
	silent := not(talk)
	steps := []struct {
		name string
		do   func()
		want func(context.Context) error
	}{
		{"connected", func() {}, talk},
		{"cut", seg.Cut, silent},
		{"healed", seg.Heal, talk},
		{"link down", func() { guests[1].LinkDown("nic0") }, silent},
		{"link up", func() { guests[1].LinkUp("nic0") }, talk},
	}
	for _, s := range steps {
		s.do()
		await(t, s.name, time.Minute, s.want)
	}
	if seg.Bytes() == 0 {
		t.Error("the segment counted no bytes")
	}
	conn, err := net.Dial("tcp", guests[0].Forward("127.0.0.1:7"))
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(conn); err != nil {
		t.Errorf("over a forwarded port: %v", err)
	}
	t.Logf("reboot: %v", guests[1].Reboot().Round(100*time.Millisecond))
	await(t, "talk after a reboot", time.Minute, talk)
}

// echo says hello and waits for it to come back.
func echo(conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err
}
