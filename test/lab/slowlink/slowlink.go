// Package slowlink carries packets between two network namespaces as a slow line does, because the kernels that tests run on have no
// netem: it reads them from one tun interface and writes them to another one later. Only test/lab may import it.
package slowlink

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/test/lab/netns"
)

// Quality is how bad a line is, in each direction.
type Quality struct {
	// Delay is the time that every packet takes; a round trip takes twice as long.
	Delay time.Duration
	// Loss is the share of packets that vanish, 0 to 1.
	Loss float64
	// Rate is in bits per second; 0 is unlimited.
	Rate int64
}

// queue is how many packets wait on the line at most; later ones are dropped, as by a router.
const queue = 1000

// Line is a slow line between two interfaces. Change and Close may be called at any time.
type Line struct {
	ends  [2]*os.File
	ended sync.WaitGroup

	mu      sync.Mutex
	quality Quality
}

// New makes an interface in each of two namespaces, sets them up, and carries packets between them until Close.
func New(a *netns.Namespace, aName string, b *netns.Namespace, bName string, q Quality) (*Line, error) {
	l := &Line{quality: q}
	for i, end := range []struct {
		ns   *netns.Namespace
		name string
	}{{a, aName}, {b, bName}} {
		f, err := openTun(end.ns, end.name)
		if err == nil {
			l.ends[i] = f
			err = end.ns.SetUp(end.name, true)
		}
		if err != nil {
			return nil, errors.Join(err, l.closeEnds())
		}
	}
	for i := range l.ends {
		packets := make(chan packet, queue)
		l.ended.Go(func() { l.read(l.ends[i], packets) })
		l.ended.Go(func() { l.write(l.ends[1-i], packets) })
	}
	return l, nil
}

// Change gives the line another quality.
func (l *Line) Change(q Quality) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quality = q
}

// Close removes the interfaces.
func (l *Line) Close() error {
	err := l.closeEnds()
	l.ended.Wait()
	return err
}

func (l *Line) closeEnds() error {
	var errs []error
	for _, f := range l.ends {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// packet is what is on its way.
type packet struct {
	due  time.Time
	data []byte
}

// maxPacket is more than any packet of a tun interface without offloads has.
const maxPacket = 64 << 10

// read takes packets off one end until that is closed, and says when each is due at the other.
func (l *Line) read(from *os.File, packets chan<- packet) {
	defer close(packets)
	buf := make([]byte, maxPacket)
	free := time.Now() // when the line has sent everything before
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		q := l.quality
		l.mu.Unlock()
		if q.Loss > 0 && rand.Float64() < q.Loss {
			continue
		}
		if now := time.Now(); free.Before(now) {
			free = now
		}
		if q.Rate > 0 {
			free = free.Add(time.Duration(int64(n) * 8 * int64(time.Second) / q.Rate))
		}
		select {
		case packets <- packet{due: free.Add(q.Delay), data: append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

// write puts packets on the other end when they are due.
func (l *Line) write(to *os.File, packets <-chan packet) {
	for p := range packets {
		time.Sleep(time.Until(p.due))
		_, _ = to.Write(p.data) // the interface is down: lost, as on a line
	}
}

// openTun makes a tun interface in a namespace. It exists as long as the file is open.
func openTun(ns *netns.Namespace, name string) (f *os.File, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("make interface %s: %w", name, err), unix.Close(fd))
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	return f, err
}
