package vm

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// station is one card on the segment.
type station struct {
	t    *testing.T
	conn net.Conn
	mac  byte
}

func plugIn(t *testing.T, s *Segment, mac byte) station {
	mine, theirs := net.Pipe()
	go s.plug(theirs)
	return station{t, mine, mac}
}

// frame is an Ethernet frame between stations; to 0xff is a broadcast.
func frame(to, from byte, text string) []byte {
	dst, src := []byte{2, 0, 0, 0, 0, to}, []byte{2, 0, 0, 0, 0, from}
	if to == 0xff {
		dst = bytes.Repeat([]byte{0xff}, 6)
	}
	return append(append(append(dst, src...), 8, 0), text...)
}

func (s station) send(to byte, text string) {
	s.t.Helper()
	f := frame(to, s.mac, text)
	if _, err := s.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits for the next frame.
func (s station) expect(from, to byte, text string) {
	s.t.Helper()
	_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	want := frame(to, from, text)
	got := make([]byte, 4+len(want))
	if _, err := io.ReadFull(s.conn, got); err != nil {
		s.t.Fatalf("station %d: %v", s.mac, err)
	}
	if !bytes.Equal(got[4:], want) {
		s.t.Fatalf("station %d: got %q, want %q", s.mac, got[4:], want)
	}
}

// TestSegmentSwitches floods what is unknown, sends the rest to one port only, and drops everything while cut.
func TestSegmentSwitches(t *testing.T) {
	s := NewSegment(t)
	a, b, c := plugIn(t, s, 1), plugIn(t, s, 2), plugIn(t, s, 3)
	awaitPorts(t, s, 3)
	a.send(0xff, "who is there")
	b.expect(1, 0xff, "who is there")
	c.expect(1, 0xff, "who is there")
	b.send(1, "me")
	a.expect(2, 1, "me")
	a.send(2, "only you")
	b.expect(1, 2, "only you")
	before := s.Bytes()
	s.Cut()
	a.send(0xff, "lost")
	a.send(0xff, "lost too")
	s.Heal()
	a.send(3, "to c") // unknown still: everyone gets it, and nobody anything before it
	b.expect(1, 3, "to c")
	c.expect(1, 3, "to c")
	if got := s.Bytes() - before; got > uint64(2*len(frame(0xff, 1, "lost too"))) {
		t.Errorf("counted %d bytes, with those of frames dropped by the cut", got)
	}
	_ = c.conn.Close()
	awaitPorts(t, s, 2)
}

func awaitPorts(t *testing.T, s *Segment, want int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.ports)
		s.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d ports, want %d", n, want)
		}
	}
}
