package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Limits of the transport.
const (
	maxPacket  = 2 << 10   // bytes of a packet: what is longer was not sent by a member
	maxStream  = 512 << 10 // bytes read from a stream: the state of some thousand members
	maxStreams = 8         // streams at once that others have opened
	maxQueue   = 64        // packets that wait to be worked on
)

// transport carries the gossip over UDP and TCP at one address. It is memberlist's own with bounds on everything that strangers
// can send, and without a large buffer for each packet.
type transport struct {
	local   netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	udp     *net.UDPConn
	tcp     *net.TCPListener
	slots   chan struct{}
	closed  chan struct{}
	once    sync.Once
	loops   sync.WaitGroup
}

// listen opens both sockets.
func listen(ctx context.Context, local netip.AddrPort) (*transport, error) {
	t := &transport{
		local: local, packets: make(chan *memberlist.Packet, maxQueue), streams: make(chan net.Conn),
		slots: make(chan struct{}, maxStreams), closed: make(chan struct{}),
	}
	var lc net.ListenConfig
	tcp, err := lc.Listen(ctx, "tcp", local.String())
	if err != nil {
		return nil, fmt.Errorf("listen for neighbours: %w", err)
	}
	tcpListener, ok := tcp.(*net.TCPListener)
	if !ok {
		return nil, errors.New("listen for neighbours: not a TCP listener")
	}
	t.tcp = tcpListener
	if bound, err := netip.ParseAddrPort(tcp.Addr().String()); err == nil {
		t.local = bound // of a port that the system chose
	}
	t.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(t.local))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for neighbours: %w", err), tcp.Close())
	}
	t.loops.Go(t.receive)
	t.loops.Go(t.accept)
	return t, nil
}

func (t *transport) receive() {
	buffer := make([]byte, maxPacket)
	for {
		n, from, err := t.udp.ReadFromUDP(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n == 0 || n == len(buffer) {
			continue
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: append([]byte(nil), buffer[:n]...), From: from, Timestamp: time.Now()}:
		default: // as a full socket buffer would
		}
	}
}

func (t *transport) accept() {
	for {
		c, err := t.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // out of file descriptors, most likely
			case <-t.closed:
				return
			case <-time.After(time.Second):
			}
			continue
		}
		select {
		case t.slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		select {
		case t.streams <- &stream{Conn: c, reader: io.LimitReader(c, maxStream), release: sync.OnceFunc(func() { <-t.slots })}:
		case <-t.closed:
			_ = c.Close()
			return
		}
	}
}

// stream is a connection with an end to what it delivers.
type stream struct {
	net.Conn
	reader  io.Reader
	release func()
}

// Read reads up to the limit.
func (s *stream) Read(p []byte) (int, error) { return s.reader.Read(p) }

// Close gives the slot back.
func (s *stream) Close() error {
	s.release()
	return s.Conn.Close()
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.local.Addr().AsSlice(), int(t.local.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: t.local.Addr().AsSlice()}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: c, reader: io.LimitReader(c, maxStream), release: func() {}}, nil
}

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		close(t.closed)
		err = errors.Join(t.udp.Close(), t.tcp.Close())
		t.loops.Wait()
	})
	return err
}
