package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/kedge-io/kedge/test/vm/control"
)

// runTimeout bounds Run; longer work goes through Exec with its own context.
const runTimeout = 5 * time.Minute

// Run runs a shell command and returns its standard output and error together. The error is a *control.ExitError when the command
// ended with another code than 0.
func (g *Guest) Run(command string) (string, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), runTimeout)
	defer cancel()
	var out bytes.Buffer
	err := g.Exec(ctx, control.Command{Argv: []string{"sh", "-c", command}, Stdout: &out, Stderr: &out})
	return out.String(), err
}

// MustRun is Run that fails the test on any error and returns the output without spaces around it.
func (g *Guest) MustRun(command string) string {
	g.t.Helper()
	out, err := g.Run(command)
	if err != nil {
		g.t.Fatalf("on %s: %s: %v\n%s", g.cfg.Name, command, err, out)
	}
	return strings.TrimSpace(out)
}

// Exec runs a program with streams; see control.Client.Exec.
func (g *Guest) Exec(ctx context.Context, c control.Command) error {
	on := g.on.Load()
	if on == nil {
		return fmt.Errorf("guest %s is off", g.cfg.Name)
	}
	return on.control.Exec(ctx, c)
}

// CopyIn copies a host file to a guest path, with its mode, making directories. It is on the guest's disk for good afterwards.
func (g *Guest) CopyIn(from, to string) {
	g.t.Helper()
	on := g.mustBeOn("copy to")
	f, err := os.Open(from)
	if err != nil {
		g.t.Fatalf("copy to %s: %v", g.cfg.Name, err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		g.t.Fatalf("copy to %s: %v", g.cfg.Name, err)
	}
	if err := on.control.Put(g.t.Context(), to, st.Mode(), f); err != nil {
		g.t.Fatalf("copy to %s: %v", g.cfg.Name, err)
	}
}

// WriteFile is CopyIn of a text.
func (g *Guest) WriteFile(to string, mode fs.FileMode, content string) {
	g.t.Helper()
	on := g.mustBeOn("write to")
	if err := on.control.Put(g.t.Context(), to, mode, strings.NewReader(content)); err != nil {
		g.t.Fatalf("write to %s: %v", g.cfg.Name, err)
	}
}

// CopyOut copies a guest file to a host path.
func (g *Guest) CopyOut(from, to string) {
	g.t.Helper()
	on := g.mustBeOn("copy from")
	f, err := os.Create(to)
	if err != nil {
		g.t.Fatalf("copy from %s: %v", g.cfg.Name, err)
	}
	defer func() { _ = f.Close() }()
	if err := on.control.Get(g.t.Context(), from, f); err != nil {
		g.t.Fatalf("copy from %s: %v", g.cfg.Name, err)
	}
}

// Dial connects to an address as seen from inside the guest, over the control channel: it works with every link down.
func (g *Guest) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	on := g.on.Load()
	if on == nil {
		return nil, fmt.Errorf("guest %s is off", g.cfg.Name)
	}
	return on.control.Dial(ctx, network, address)
}

// Forward listens on a free loopback port of the host until the test ends and passes connections to a TCP address inside the
// guest, also after it was switched off and on again. It returns the host address.
func (g *Guest) Forward(guestAddress string) string {
	g.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatalf("forward to %s: %v", g.cfg.Name, err)
	}
	g.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.forward(c, guestAddress)
		}
	}()
	return l.Addr().String()
}

func (g *Guest) forward(c net.Conn, guestAddress string) {
	defer func() { _ = c.Close() }()
	inside, err := g.Dial(g.t.Context(), "tcp", guestAddress)
	if err != nil {
		return // the caller sees its connection close
	}
	defer func() { _ = inside.Close() }()
	go func() {
		_, _ = io.Copy(inside, c)
		_ = inside.Close()
	}()
	_, _ = io.Copy(c, inside)
}

// LinkDown pulls the cable of a card: "uplink", or "nic0", "nic1" for Config.NICs. It stays pulled over Start.
func (g *Guest) LinkDown(link string) { g.setLink(link, false) }

// LinkUp plugs the cable in again.
func (g *Guest) LinkUp(link string) { g.setLink(link, true) }

func (g *Guest) setLink(link string, up bool) {
	g.t.Helper()
	if up {
		delete(g.linkDown, link)
	} else {
		g.linkDown[link] = true
	}
	on := g.on.Load()
	if on == nil {
		return
	}
	if err := on.monitor.setLink(link, up); err != nil {
		g.t.Fatalf("link %s of %s: %v", link, g.cfg.Name, err)
	}
}

// ends are the test's ends of the sockets that qemu inherits.
type ends struct {
	control, monitor, disk net.Conn
	nics                   []net.Conn
}

// inherit makes the socket pairs and puts qemu's ends into cmd.ExtraFiles.
func (g *Guest) inherit(cmd *exec.Cmd) (ends, sockets, error) {
	var e ends
	var s sockets
	pair := func(conn *net.Conn, number *int) error {
		mine, theirs, err := socketPair()
		if err != nil {
			return err
		}
		*conn, *number = mine, 3+len(cmd.ExtraFiles)
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
		return nil
	}
	e.nics, s.nics = make([]net.Conn, len(g.cfg.NICs)), make([]int, len(g.cfg.NICs))
	wanted := []struct {
		conn   *net.Conn
		number *int
	}{{&e.control, &s.control}, {&e.monitor, &s.monitor}, {&e.disk, &s.disk}}
	for i := range g.cfg.NICs {
		wanted = append(wanted, struct {
			conn   *net.Conn
			number *int
		}{&e.nics[i], &s.nics[i]})
	}
	for _, w := range wanted {
		if err := pair(w.conn, w.number); err != nil {
			return e, s, fmt.Errorf("make a socket pair: %w", err)
		}
	}
	return e, s, nil
}

// socketPair is one end as a connection and the other as a file to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(fds[0]), "host end")
	defer func() { _ = mine.Close() }()
	conn, err := net.FileConn(mine)
	return conn, os.NewFile(uintptr(fds[1]), "guest end"), err
}
