package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the balancer.
const (
	maxConnections = 1024
	dialTimeout    = 5 * time.Second
	// patience is how long a client is not suspected of having left before there is a connection for it.
	patience = time.Second
	// failedFor is how long a server that could not be dialed is tried last.
	failedFor = 10 * time.Second
)

// BalancerConfig is what the balancer needs to know.
type BalancerConfig struct {
	// Listen is the local address, for example 127.0.0.1:6444.
	Listen  string
	Servers *List
	Log     *slog.Logger
}

// Balancer passes connections from a local address on to a server. It stays with one server until that fails. What passes is
// TLS between the part and the server: the balancer sees nothing of it.
type Balancer struct {
	cfg       BalancerConfig
	listening atomic.Bool

	mu      sync.Mutex
	current string
	failed  map[string]time.Time
	open    map[net.Conn]string // connections to servers, by server
	down    bool                // no server could be reached at the last attempt
}

// NewBalancer prepares the balancer.
func NewBalancer(cfg BalancerConfig) (*Balancer, error) {
	if cfg.Servers == nil || cfg.Log == nil {
		return nil, errors.New("balancer: servers and log are required")
	}
	if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
		return nil, fmt.Errorf("balancer: listen address %q: %w", cfg.Listen, err)
	}
	return &Balancer{cfg: cfg, failed: map[string]time.Time{}, open: map[net.Conn]string{}}, nil
}

// Name implements supervisor.Component.
func (*Balancer) Name() string { return "balancer" }

// Ready implements supervisor.Component: the local address is there. Whether a server is, is another question.
func (b *Balancer) Ready(context.Context) error {
	if !b.listening.Load() {
		return fmt.Errorf("not listening at %s yet", b.cfg.Listen)
	}
	return nil
}

// Current returns the server that new connections go to, or "".
func (b *Balancer) Current() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

// Run implements supervisor.Component.
func (b *Balancer) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", b.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	b.listening.Store(true)
	defer b.listening.Store(false)
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	work.Go(func() { b.follow(ctx) })
	slots := make(chan struct{}, maxConnections)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case slots <- struct{}{}:
			work.Go(func() {
				defer func() { <-slots }()
				b.pass(ctx, c)
			})
		default:
			_ = c.Close()
		}
	}
}

// follow closes the connections to servers that leave the list.
func (b *Balancer) follow(ctx context.Context) {
	for {
		changed := b.cfg.Servers.Changed()
		servers := b.cfg.Servers.All()
		b.mu.Lock()
		for c, server := range b.open {
			if !slices.Contains(servers, server) {
				_ = c.Close()
			}
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// Drop closes the connections to a server that is known to be out of reach: those who use them learn it now, and not when a
// timer of theirs ends. Others are tried before it for a while: a machine may take connections whose kedge answers nothing.
func (b *Balancer) Drop(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed[server] = time.Now()
	for c, s := range b.open {
		if s == server {
			_ = c.Close()
		}
	}
}

// pass connects one local connection with a server, until either side closes or ctx is done.
func (b *Balancer) pass(ctx context.Context, near net.Conn) {
	defer near.Close()
	begin := time.Now()
	far := b.connect(ctx)
	if far == nil {
		return
	}
	defer b.forget(far)
	if time.Since(begin) > patience && left(near) {
		return
	}
	stop := context.AfterFunc(ctx, func() {
		_ = near.Close()
		_ = far.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pour(far, gather{near}) })
	pour(near, far)
	both.Wait()
}

// left says whether a client has closed its connection while there was none to a server. What it had written by then would cost the line a
// handshake that nobody waits for.
func left(c net.Conn) bool {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	_ = raw.Control(func(fd uintptr) { // or it is taken for open
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State != unix.BPF_TCP_ESTABLISHED
	})
	return closed
}

// Reach says whether any server takes connections, without the cost of one that is used. All are asked at once.
func (b *Balancer) Reach(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := b.order(time.Now())
	if len(servers) == 0 {
		return errors.New("no server is known")
	}
	answers := make(chan error, len(servers))
	for _, server := range servers {
		go func() { answers <- b.touch(ctx, server) }()
	}
	var failures error
	for range servers {
		err := <-answers
		if err == nil {
			return nil
		}
		failures = errors.Join(failures, err)
	}
	return failures
}

// touch opens a connection and closes it.
func (b *Balancer) touch(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: dialTimeout, Control: limitBackoff}
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	return c.Close()
}

// pour copies one direction, then tells the receiver that no more comes. When the receiver is gone, the sender is told too.
func pour(to net.Conn, from io.Reader) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
	if c, ok := from.(io.Closer); ok {
		_ = c.Close()
	}
}

// connect returns a connection to the first server that answers, or nil.
func (b *Balancer) connect(ctx context.Context) net.Conn {
	// Idle connections are kept alive by those who use them; the kernel only clears away what is long dead.
	d := net.Dialer{
		Timeout: dialTimeout, Control: limitBackoff,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4},
	}
	var failures error
	for _, server := range b.order(time.Now()) {
		u, err := url.Parse(server)
		if err != nil {
			continue
		}
		c, err := d.DialContext(ctx, "tcp", u.Host)
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err == nil {
			b.use(server, c)
			return c
		}
		failures = errors.Join(failures, err)
		b.fail(server)
	}
	b.mu.Lock()
	first := !b.down
	b.down = true
	b.mu.Unlock()
	if first {
		b.cfg.Log.Warn("no server can be reached", "error", failures)
	}
	return nil
}

// limitBackoff has the kernel send lost packets again at least every few seconds, so that a link that was cut for a while is
// used as soon as it is back. Kernels before 6.15 cannot, and double the pause up to two minutes.
func limitBackoff(_, _ string, raw syscall.RawConn) error {
	const tcpRTOMax, longest = 0x2c, 3000 // TCP_RTO_MAX_MS; milliseconds
	return raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax, longest) // or it stays as it is
	})
}

// order is the servers to try: the current one, then those of the list, and last those that failed a moment ago.
func (b *Balancer) order(now time.Time) []string {
	servers := b.cfg.Servers.All()
	b.mu.Lock()
	defer b.mu.Unlock()
	rank := func(server string) int {
		switch {
		case now.Sub(b.failed[server]) < failedFor:
			return 2
		case server != b.current:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(servers, func(x, y string) int { return rank(x) - rank(y) })
	return servers
}

func (b *Balancer) use(server string, c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.down:
		b.cfg.Log.Info("a server can be reached again", "server", server)
	case b.current != "" && b.current != server:
		b.cfg.Log.Info("using another server", "server", server, "instead of", b.current)
	}
	b.current, b.down = server, false
	delete(b.failed, server)
	b.open[c] = server
}

func (b *Balancer) fail(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed[server] = time.Now()
}

func (b *Balancer) forget(c net.Conn) {
	_ = c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, c)
}
