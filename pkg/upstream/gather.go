package upstream

import (
	"io"
	"net"
	"time"
)

const (
	// gatherTime is how long bytes wait for more: a node that returns writes twenty requests at once, one by one.
	gatherTime = time.Millisecond
	// gatherFull is what is not kept waiting, in bytes: about a packet.
	gatherFull = 1400
)

// gather reads what is written in short succession at once, so that it goes over the line in one packet: the headers of a packet are as long as a
// request.
type gather struct{ net.Conn }

// Read implements io.Reader.
func (g gather) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err != nil || n >= gatherFull || n == len(p) {
		return n, err
	}
	if err := g.SetReadDeadline(time.Now().Add(gatherTime)); err != nil {
		return n, err
	}
	for err == nil && n < gatherFull && n < len(p) {
		var more int
		more, err = g.Conn.Read(p[n:]) // an error that is not the end of the time is there at the next call too
		n += more
	}
	return n, g.SetReadDeadline(time.Time{})
}

// WriteTo implements io.WriterTo, with a buffer that is small: there is one for each connection, for as long as it lasts.
func (g gather) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{g}, make([]byte, 4<<10))
}
