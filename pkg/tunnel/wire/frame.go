package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// maxFrame is the largest WebSocket frame that either end may send, in bytes: more than the 16 KiB chunks that the tunnel's own
// ends send, with their headers.
const maxFrame = 64 << 10

// headSize is how much of a frame's payload is looked at: the varints of a message header and the stream tag of a connect.
const headSize = 96

// WebSocket opcodes, RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opPing         = 0x9
)

var errFragment = errors.New("fragmented message")

// frame is the beginning of one WebSocket frame.
type frame struct {
	opcode byte
	size   int    // length of the payload
	head   []byte // the first bytes of the payload, unmasked; valid during the call only
}

// scanner follows a byte stream of WebSocket frames without holding it up. One goroutine at a time may use it.
type scanner struct {
	preface bool // an HTTP header comes first
	newline int  // how much of its end has been seen

	header [14]byte
	have   int // bytes of the header seen

	opcode  byte
	size    int
	left    int // payload bytes still to come
	masked  bool
	mask    [4]byte
	head    [headSize]byte
	headLen int
	pending bool // the frame has not been reported yet
}

// boundary reports whether the next byte begins a frame.
func (s *scanner) boundary() bool { return !s.preface && s.have == 0 && s.left == 0 }

// scan reads on through b and calls on for each frame as soon as its head is complete.
func (s *scanner) scan(b []byte, on func(frame) error) error {
	if s.preface {
		b = s.skipPreface(b)
	}
	for len(b) > 0 {
		if s.left == 0 {
			n, err := s.readHeader(b)
			if err != nil {
				return err
			}
			b = b[n:]
		} else {
			b = b[s.readPayload(b):]
		}
		if s.pending && (s.left == 0 || s.headLen == headSize) {
			s.pending = false
			if err := on(frame{opcode: s.opcode, size: s.size, head: s.head[:s.headLen]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scanner) skipPreface(b []byte) []byte {
	const end = "\r\n\r\n"
	for i, c := range b {
		switch {
		case c == end[s.newline]:
			s.newline++
		case c == '\r':
			s.newline = 1
		default:
			s.newline = 0
		}
		if s.newline == len(end) {
			s.preface = false
			return b[i+1:]
		}
	}
	return nil
}

// readHeader takes header bytes from b until the header is complete, and returns how many.
func (s *scanner) readHeader(b []byte) (int, error) {
	used := 0
	for used < len(b) {
		s.header[s.have] = b[used]
		s.have++
		used++
		if s.have < headerLength(s.header[:s.have]) {
			continue
		}
		err := s.begin()
		s.have = 0
		return used, err
	}
	return used, nil
}

// headerLength is the length of a frame header as far as its first bytes tell.
func headerLength(h []byte) int {
	if len(h) < 2 {
		return 2
	}
	n := 2
	switch h[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// begin starts a frame whose header is complete.
func (s *scanner) begin() error {
	h := s.header[:s.have]
	s.opcode = h[0] & 0x0f
	size := uint64(h[1] & 0x7f)
	rest := h[2:]
	switch size {
	case 126:
		size, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		size, rest = binary.BigEndian.Uint64(rest), rest[8:]
	}
	if s.masked = h[1]&0x80 != 0; s.masked {
		copy(s.mask[:], rest)
	}
	switch {
	case size > maxFrame:
		return fmt.Errorf("frame of %d bytes is larger than %d", size, maxFrame)
	case h[0]&0x80 == 0 || s.opcode == opContinuation:
		return errFragment
	}
	s.size, s.left, s.headLen, s.pending = int(size), int(size), 0, true
	return nil
}

// readPayload skips payload bytes of b, keeping the head, and returns how many.
func (s *scanner) readPayload(b []byte) int {
	n := min(len(b), s.left)
	keep := min(n, headSize-s.headLen)
	for i, c := range b[:keep] {
		if s.masked {
			c ^= s.mask[(s.headLen+i)%4]
		}
		s.head[s.headLen+i] = c
	}
	s.headLen += keep
	s.left -= n
	return n
}

// message is the header of one message of the multiplexer, and for a connect its tag.
type message struct {
	stream int64
	kind   int64
	body   int // length of what follows the header
	tag    string
}

// parseMessage reads the header of a message: the varints id, stream and kind, and for data and connect one more.
func parseMessage(f frame, hasDeadline func(kind int64) bool) (message, error) {
	r := bytes.NewReader(f.head)
	var m message
	_, err := binary.ReadVarint(r)
	if err == nil {
		m.stream, err = binary.ReadVarint(r)
	}
	if err == nil {
		m.kind, err = binary.ReadVarint(r)
	}
	if err == nil && hasDeadline(m.kind) {
		_, err = binary.ReadVarint(r)
	}
	if err != nil {
		return m, errors.New("message without a header")
	}
	rest := f.head[len(f.head)-r.Len():]
	m.body = f.size - (len(f.head) - r.Len())
	if tag, _, ok := bytes.Cut(rest, []byte("/")); ok {
		m.tag = string(tag)
	}
	return m, nil
}
