package mqtt

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// proveIn is how long a connection may take to say who it is.
	proveIn = 10 * time.Second
	// maxConnect is the size of the largest first packet, in bytes. The broker's library makes room for what a packet claims to be.
	maxConnect = 16 << 10
	connect    = 1 // the type of the first packet
)

// gate bounds connections of all listeners together. When there are too many, the one that has waited longest without saying who it is has
// to go, so that those who say nothing do not keep clients out.
type gate struct {
	most int

	mu    sync.Mutex
	count int
	mute  *list.List // of *guarded, the oldest first
}

func newGate(most int) *gate { return &gate{most: most, mute: list.New()} }

// guarded is a connection that the gate knows.
type guarded struct {
	net.Conn
	gate  *gate
	at    *list.Element // nil when it has said who it is; guarded by gate.mu
	once  sync.Once
	first firstPacket // used by one reader
}

var errFull = errors.New("too many connections")

// admit takes a connection over, or closes it.
func (g *gate) admit(c net.Conn) (*guarded, error) {
	guard := &guarded{Conn: c, gate: g}
	g.mu.Lock()
	var oldest *guarded
	if g.count >= g.most {
		front := g.mute.Front()
		if front == nil {
			g.mu.Unlock()
			return nil, errors.Join(errFull, c.Close())
		}
		oldest = front.Value.(*guarded)
	}
	guard.at = g.mute.PushBack(guard)
	g.count++
	g.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	return guard, c.SetDeadline(time.Now().Add(proveIn))
}

// prove says that the connection is that of a client.
func (c *guarded) prove() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.at != nil {
		c.gate.mute.Remove(c.at)
		c.at = nil
	}
}

// Read implements net.Conn.
func (c *guarded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.first.fine(b[:n]) {
		return 0, errors.New("the first packet is none that a client begins with")
	}
	return n, err
}

// Close implements net.Conn.
func (c *guarded) Close() error {
	c.once.Do(func() {
		c.prove()
		c.gate.mu.Lock()
		c.gate.count--
		c.gate.mu.Unlock()
	})
	return c.Conn.Close()
}

// firstPacket reads the head of the first packet of a connection (MQTT 3.1.1, section 2.2): its type, then its length in groups of seven bits.
type firstPacket struct {
	seen, length int
	known        bool
}

// fine says whether what came goes on as it must.
func (p *firstPacket) fine(data []byte) bool {
	for _, b := range data {
		if p.known {
			return true
		}
		if p.seen == 0 {
			if b>>4 != connect {
				return false
			}
			p.seen++
			continue
		}
		p.length |= int(b&0x7f) << (7 * (p.seen - 1))
		p.seen++
		if p.length > maxConnect || p.seen > 5 {
			return false
		}
		p.known = b&0x80 == 0
	}
	return true
}

// guardedListener brings all connections through the gate.
type guardedListener struct {
	net.Listener
	gate *gate
}

// Accept implements net.Listener.
func (l guardedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if guard, err := l.gate.admit(c); err == nil {
			return guard, nil
		}
	}
}
