package vm

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// Segment is an Ethernet switch in the test process that guests plug into. Nothing of the host is reachable through it.
type Segment struct {
	mu    sync.Mutex
	ports map[*port]bool
	macs  map[[6]byte]*port
	cut   bool
	bytes uint64
}

// port is one plugged cable; frames to it wait in a bounded queue, and a full queue drops as a switch does.
type port struct {
	conn  net.Conn
	queue chan []byte
}

const (
	portQueue = 1024
	// maxFrame is the largest frame qemu sends: 64 KiB of segmentation offload and headers.
	maxFrame = 68 << 10
)

// NewSegment makes a switch that lasts as long as the test.
func NewSegment(t testing.TB) *Segment {
	s := &Segment{ports: map[*port]bool{}, macs: map[[6]byte]*port{}}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for p := range s.ports {
			_ = p.conn.Close()
		}
	})
	return s
}

// Cut makes the switch drop every frame; the guests' links stay up, as with a failure further away.
func (s *Segment) Cut() { s.setCut(true) }

// Heal ends Cut.
func (s *Segment) Heal() { s.setCut(false) }

func (s *Segment) setCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
}

// Bytes is the sum of the lengths of all Ethernet frames taken in, without those dropped by Cut.
func (s *Segment) Bytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// plug serves one cable until it is pulled.
func (s *Segment) plug(conn net.Conn) {
	p := &port{conn: conn, queue: make(chan []byte, portQueue)}
	s.mu.Lock()
	s.ports[p] = true
	s.mu.Unlock()
	go p.send()
	s.receive(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, p)
	for mac, owner := range s.macs {
		if owner == p {
			delete(s.macs, mac)
		}
	}
	close(p.queue)
	_ = conn.Close()
}

// receive reads frames, each after its length (4 bytes, big endian).
func (s *Segment) receive(p *port) {
	r := bufio.NewReader(p.conn)
	for {
		var n uint32
		if err := binary.Read(r, binary.BigEndian, &n); err != nil || n < 14 || n > maxFrame {
			return
		}
		frame := make([]byte, 4+n)
		binary.BigEndian.PutUint32(frame, n)
		if _, err := io.ReadFull(r, frame[4:]); err != nil {
			return
		}
		s.forward(p, frame)
	}
}

// forward learns the sender's port and sends to the receiver's, or to all when that is unknown.
func (s *Segment) forward(from *port, frame []byte) {
	dst, src := [6]byte(frame[4:10]), [6]byte(frame[10:16])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return
	}
	s.bytes += uint64(len(frame) - 4)
	s.macs[src] = from
	if to, known := s.macs[dst]; known && dst[0]&1 == 0 {
		if to != from {
			to.offer(frame)
		}
		return
	}
	for to := range s.ports {
		if to != from {
			to.offer(frame)
		}
	}
}

func (p *port) offer(frame []byte) {
	select {
	case p.queue <- frame:
	default:
	}
}

// send writes queued frames until the queue is closed.
func (p *port) send() {
	for frame := range p.queue {
		if _, err := p.conn.Write(frame); err != nil {
			_ = p.conn.Close()
		}
	}
}
