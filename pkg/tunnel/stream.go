package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-io/kedge/pkg/tunnel/wire"
)

// stream is the server's end of one connection to a target of a node. The multiplexer's own deadlines are not safe to use:
// here a deadline that passes closes the stream.
type stream struct {
	net.Conn
	account *wire.Account
	addr    streamAddr
	idle    *idleTimer

	mu          sync.Mutex
	closed      bool
	timedOut    atomic.Bool
	read, write *time.Timer
}

type streamAddr struct{ node, target string }

func (streamAddr) Network() string  { return "tunnel" }
func (a streamAddr) String() string { return a.target + "." + a.node }

func newStream(c net.Conn, account *wire.Account, node, target string) *stream {
	s := &stream{Conn: c, account: account, addr: streamAddr{node, target}}
	s.idle = newIdleTimer(streamIdle, func() { _ = s.Close() })
	return s
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.idle.touch()
	s.account.Consumed(n)
	if err != nil && s.timedOut.Load() {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Write implements net.Conn. A long write is cut, so that other streams get their turn and no frame is too large.
func (s *stream) Write(b []byte) (int, error) {
	s.idle.touch()
	return writeChunks(s.Conn, b)
}

func writeChunks(w io.Writer, b []byte) (int, error) {
	written := 0
	for {
		n, err := w.Write(b[:min(len(b), chunk)])
		written += n
		b = b[n:]
		if err != nil || len(b) == 0 {
			return written, err
		}
	}
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, t := range []*time.Timer{s.read, s.write} {
		if t != nil {
			t.Stop()
		}
	}
	s.idle.stop()
	s.account.Close()
	return s.Conn.Close()
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.addr }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.addr }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error {
	s.arm(&s.read, t)
	s.arm(&s.write, t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.arm(&s.read, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.arm(&s.write, t)
	return nil
}

func (s *stream) arm(timer **time.Timer, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if t.IsZero() || s.closed {
		return
	}
	*timer = time.AfterFunc(time.Until(t), func() {
		s.timedOut.Store(true)
		_ = s.Close()
	})
}

// idleTimer calls a function once when touch has not been called for a while.
type idleTimer struct {
	limit   time.Duration
	expired func()
	last    atomic.Int64 // nanoseconds of the system clock

	mu    sync.Mutex
	timer *time.Timer
}

func newIdleTimer(limit time.Duration, expired func()) *idleTimer {
	t := &idleTimer{limit: limit, expired: expired}
	t.touch()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(limit, t.check)
	return t
}

func (t *idleTimer) check() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := t.limit - time.Since(time.Unix(0, t.last.Load())); left > 0 {
		t.timer.Reset(left)
		return
	}
	go t.expired() // it calls stop
}

func (t *idleTimer) touch() { t.last.Store(time.Now().UnixNano()) }

func (t *idleTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
}

// local is the node's end of a stream: the connection to the target.
type local struct {
	net.Conn
	account *wire.Account
	idle    *idleTimer
	release func()

	mu     sync.Mutex
	remote io.Closer // the multiplexer's stream, while WriteTo may wait in it
	closed bool
}

func newLocal(c net.Conn, account *wire.Account, release func()) *local {
	l := &local{Conn: c, account: account, release: release}
	l.idle = newIdleTimer(streamIdle, func() { _ = l.Close() })
	return l
}

// WriteTo implements io.WriterTo: what the target sends goes to the server. That it is we who copy, and not the multiplexer,
// lets us say first that the dial succeeded, bound each message, and wake a copy that was paused when the session ended.
func (l *local) WriteTo(w io.Writer) (int64, error) {
	if c, ok := w.(io.Closer); ok {
		l.mu.Lock()
		closed := l.closed
		l.remote = c
		l.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		defer l.forgetRemote()
	}
	if _, err := w.Write([]byte{accepted}); err != nil {
		return 0, fmt.Errorf("confirm the dial: %w", err)
	}
	buf := make([]byte, chunk)
	var total int64
	for {
		n, err := l.Conn.Read(buf)
		if n > 0 {
			l.idle.touch()
			m, writeErr := w.Write(buf[:n])
			total += int64(m)
			if writeErr != nil {
				return total, writeErr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (l *local) forgetRemote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remote = nil
}

// Write implements net.Conn: what the server sends goes to the target.
func (l *local) Write(b []byte) (int, error) {
	l.idle.touch()
	n, err := l.Conn.Write(b)
	l.account.Consumed(len(b))
	return n, err
}

// Close implements net.Conn.
func (l *local) Close() error {
	l.mu.Lock()
	remote, first := l.remote, !l.closed
	l.closed = true
	l.mu.Unlock()
	if !first {
		return nil
	}
	l.idle.stop()
	l.account.Close()
	l.release()
	err := l.Conn.Close()
	if remote != nil {
		go remote.Close() // its stream may be held by who called us
	}
	return err
}
