// Package wire guards the connection under a tunnel session: it bounds every frame and every backlog, refuses messages that
// this end has no use for, and decides when the link is dead. The multiplexer above it has constants where we need settings.
// It is an inner room of tunnel.
package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rancher/remotedialer"
)

// Config says how a connection is guarded.
type Config struct {
	// Agent says that this is the end that dialed out.
	Agent bool
	// Dead is how long the other end may be silent.
	Dead time.Duration
	// WriteTimeout is how long one write may take before the link counts as dead.
	WriteTimeout time.Duration
	Ledger       *Ledger
	// Ping, on the server, is called with the content of each ping; nil for nobody.
	Ping func(content byte)
	// Greeting is a header line for the server's answer to the upgrade, without its end; empty for none. The multiplexer gives
	// no place to say it.
	Greeting string
}

// Conn is a guarded connection. Close may be called at any time, from any goroutine.
type Conn struct {
	net.Conn
	cfg Config

	in       scanner // reader only
	extended time.Time

	mu        sync.Mutex // one writer
	out       scanner
	quietSync bool // the last list of streams that was sent was empty

	failure failure
}

// Guard wraps a connection on which HTTP has come to the point of an upgrade: the agent has sent nothing yet, the server has
// read the request and not answered.
func Guard(c net.Conn, cfg Config) *Conn {
	tune(c)
	g := &Conn{Conn: c, cfg: cfg}
	g.in.preface = cfg.Agent
	g.out.preface = true
	return g
}

// tune has the kernel send lost packets again at least every few seconds, so that a link that was cut for a while is used as
// soon as it is back (kernels before 6.15 cannot, and double the pause up to two minutes), and hold little that is not sent yet,
// so that on a slow link a small message is not behind megabytes of a large one.
func tune(c net.Conn) {
	const (
		tcpRTOMax, longest = 0x2c, 3000     // TCP_RTO_MAX_MS; milliseconds
		tcpUnsent, queue   = 0x19, 32 << 10 // TCP_NOTSENT_LOWAT; bytes
	)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // what the kernel does not know stays as it is
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax, longest)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUnsent, queue)
	})
}

// failure keeps the first reason why a connection was closed by its guard.
type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) set(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	return f.err
}

// Failure is why the guard closed the connection, or nil.
func (c *Conn) Failure() error {
	c.failure.mu.Lock()
	defer c.failure.mu.Unlock()
	return c.failure.err
}

// End closes the connection for a reason that Failure keeps.
func (c *Conn) End(reason error) {
	_ = c.failure.set(reason)
	_ = c.Conn.Close()
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if scanErr := c.in.scan(b[:n], c.incoming); scanErr != nil {
		c.End(fmt.Errorf("refused what the other end sent: %w", scanErr))
		return 0, c.Failure()
	}
	// On a slow link that is busy the answer to a ping waits behind much else: whatever arrives shows that the link works.
	if n > 0 && !c.in.preface && time.Since(c.extended) > c.cfg.Dead/8 {
		c.extended = time.Now()
		_ = c.Conn.SetReadDeadline(c.extended.Add(c.cfg.Dead)) // a closed connection fails at the next read
	}
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			err = c.failure.set(fmt.Errorf("nothing heard for %s", c.cfg.Dead))
		}
	}
	return n, err
}

// incoming checks one frame from the other end.
func (c *Conn) incoming(f frame) error {
	if f.opcode == opPing && f.size == 1 && c.cfg.Ping != nil {
		c.cfg.Ping(f.head[0])
	}
	if f.opcode != opBinary {
		return nil // control frames are small by the protocol, and other data frames end the session above
	}
	m, err := parseMessage(f, hasDeadline)
	if err != nil {
		return err
	}
	if !slices.Contains(welcome(c.cfg.Agent), m.kind) {
		return fmt.Errorf("message of kind %d", m.kind)
	}
	switch m.kind {
	case int64(remotedialer.Connect):
		c.cfg.Ledger.bind(m.stream, m.tag)
	case int64(remotedialer.Data):
		return c.cfg.Ledger.arrived(m.stream, m.body)
	}
	return nil
}

// welcome lists what an end accepts: only servers ask for streams, and nobody speaks for third parties.
func welcome(agent bool) []int64 {
	both := []int64{int64(remotedialer.Data), int64(remotedialer.Error), int64(remotedialer.Pause), int64(remotedialer.Resume)}
	if agent {
		return append(both, int64(remotedialer.Connect))
	}
	return append(both, int64(remotedialer.SyncConnections))
}

func hasDeadline(kind int64) bool {
	return kind == int64(remotedialer.Data) || kind == int64(remotedialer.Connect)
}

// Write implements net.Conn. It leaves out what the multiplexer sends by its own clock: pings without content, which it wants
// to send every few seconds, and repeated lists of no streams.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Agent && c.out.boundary() && c.idle(b) {
		return len(b), nil
	}
	if err := c.out.scan(b, c.outgoing); err != nil {
		c.End(fmt.Errorf("refused to send: %w", err))
		return 0, c.Failure()
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout)); err != nil {
		return 0, err
	}
	n, err := c.send(b)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			err = fmt.Errorf("nothing could be sent for %s", c.cfg.WriteTimeout)
		}
		c.End(err)
	}
	return n, err
}

// send writes b, with the greeting behind its first line when it is the answer to the upgrade.
func (c *Conn) send(b []byte) (int, error) {
	line := bytes.Index(b, []byte("\r\n"))
	if c.cfg.Greeting == "" || line < 0 {
		return c.Conn.Write(b)
	}
	greeting := "\r\n" + c.cfg.Greeting
	c.cfg.Greeting = ""
	if _, err := c.Conn.Write(slices.Concat(b[:line], []byte(greeting), b[line:])); err != nil {
		return 0, err
	}
	return len(b), nil
}

// outgoing learns which stream a tag belongs to.
func (c *Conn) outgoing(f frame) error {
	if f.opcode != opBinary {
		return nil
	}
	m, err := parseMessage(f, hasDeadline)
	if err == nil && m.kind == int64(remotedialer.Connect) {
		c.cfg.Ledger.bind(m.stream, m.tag)
	}
	return err
}

// idle reports whether b is one whole frame that tells the other end nothing. The end that dialed sends frames in one piece.
func (c *Conn) idle(b []byte) bool {
	whole := scanner{}
	silent := false
	err := whole.scan(b, func(f frame) error {
		switch f.opcode {
		case opPing:
			silent = f.size == 0
		case opBinary:
			m, err := parseMessage(f, hasDeadline)
			if err != nil {
				return err
			}
			empty := m.kind == int64(remotedialer.SyncConnections) && m.body == 0
			silent = empty && c.quietSync
			if m.kind == int64(remotedialer.SyncConnections) {
				c.quietSync = empty
			}
		}
		return nil
	})
	return err == nil && silent && whole.boundary()
}

// SetReadDeadline implements net.Conn. The multiplexer sets deadlines by a constant; whenever it moves one, ours moves.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(c.cfg.Dead)
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn. Every write has its own deadline.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
