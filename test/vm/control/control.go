// Package control is the channel between a test and a virtual machine: run commands, move files and open connections inside
// the guest over one byte stream, HTTP/2 in clear text. It needs no network in the guest. The test end is Client, the guest end
// Serve. Only test/vm and its guest agent may import it.
package control

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Paths of the requests; parameters travel in the query.
const (
	pathPing = "/ping"
	pathExec = "/exec"
	pathFile = "/file"
	pathDial = "/dial"
)

// Command is one program to run in the guest.
type Command struct {
	Argv   []string  `json:"argv"`
	Env    []string  `json:"env,omitempty"` // added to the agent's own environment, KEY=value
	Dir    string    `json:"dir,omitempty"` // default /root
	Stdin  io.Reader `json:"-"`             // nil: empty
	Stdout io.Writer `json:"-"`             // nil: discarded; filled while the program runs
	Stderr io.Writer `json:"-"`             // may be the same writer as Stdout
}

// ExitError is a program that ran and ended with a code other than 0; -1 means a signal.
type ExitError struct{ Code int }

// Error names the code.
func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// A program's output comes back as frames: kind (1 byte), length (4 bytes, big endian), payload. frameExit is the last one
// and carries the exit code as a 4-byte integer; frameFail carries the text of a failure to start.
const (
	frameStdout byte = iota + 1
	frameStderr
	frameExit
	frameFail
)

const frameHeader = 5

// frameWriter writes frames of one kind; frames of several writers on one stream share the lock.
type frameWriter struct {
	mu    *sync.Mutex
	w     io.Writer
	flush func() error
	kind  byte
}

// Write sends p as one frame and flushes it.
func (f *frameWriter) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var head [frameHeader]byte
	head[0] = f.kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(p)))
	if _, err := f.w.Write(head[:]); err != nil {
		return 0, err
	}
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.flush()
}

// protocols is HTTP/2 without TLS and nothing else.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// windows are the flow control settings of both ends: large, because one slow emulated CPU per round trip is what costs.
func windows() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxReadFrameSize:              256 << 10,
		MaxReceiveBufferPerConnection: 16 << 20,
		MaxReceiveBufferPerStream:     4 << 20,
	}
}

// streamConn makes a net.Conn of a byte stream that has no addresses and no deadlines.
type streamConn struct{ io.ReadWriteCloser }

// LocalAddr names the channel.
func (streamConn) LocalAddr() net.Addr { return streamAddr{} }

// RemoteAddr names the channel.
func (streamConn) RemoteAddr() net.Addr { return streamAddr{} }

// SetDeadline does nothing: a guest may stand still for as long as the host wants.
func (streamConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (streamConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

type streamAddr struct{}

// Network is a made-up name.
func (streamAddr) Network() string { return "vm" }

// String is a made-up name.
func (streamAddr) String() string { return "vm-control" }
