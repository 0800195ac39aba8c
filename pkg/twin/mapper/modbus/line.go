package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is an open connection or serial line.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// line is one way to devices; devices behind the same address share it, and one request is on it at a time.
type line struct {
	dial   func(context.Context) (stream, error)
	serial bool
	quiet  time.Duration // pause between frames of a serial line

	mu          sync.Mutex
	users       int // guarded by Opener.mu
	stream      stream
	transaction uint16
}

// ask sends a request to a unit and returns its answer. After an error of the line the next request opens it anew.
func (l *line) ask(ctx context.Context, unit byte, pdu []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.stream == nil {
		s, err := l.dial(ctx)
		if err != nil {
			return nil, err
		}
		l.stream = s
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.stream.SetDeadline(deadline); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			return nil, l.broken(err)
		}
	}
	exchange := l.tcp
	if l.serial {
		exchange = l.rtu
	}
	answer, err := exchange(unit, pdu)
	if err != nil {
		return nil, l.broken(err)
	}
	return payload(pdu, answer)
}

func (l *line) broken(err error) error {
	_ = l.stream.Close()
	l.stream = nil
	return fmt.Errorf("modbus: %w", err)
}

func (l *line) tcp(unit byte, pdu []byte) ([]byte, error) {
	l.transaction++
	if _, err := l.stream.Write(tcpFrame(l.transaction, unit, pdu)); err != nil {
		return nil, err
	}
	head := make([]byte, header)
	if _, err := io.ReadFull(l.stream, head); err != nil {
		return nil, err
	}
	size, err := tcpHeader(head, l.transaction, unit)
	if err != nil {
		return nil, err
	}
	answer := make([]byte, size)
	_, err = io.ReadFull(l.stream, answer)
	return answer, err
}

func (l *line) rtu(unit byte, pdu []byte) ([]byte, error) {
	time.Sleep(l.quiet)
	if port, ok := l.stream.(*os.File); ok { // an answer that came too late is none to this request
		if err := flush(port); err != nil {
			return nil, err
		}
	}
	if _, err := l.stream.Write(rtuFrame(unit, pdu)); err != nil {
		return nil, err
	}
	var frame []byte
	for size := 3; len(frame) < size; {
		part := make([]byte, size-len(frame))
		n, err := l.stream.Read(part)
		if err != nil {
			return nil, err
		}
		frame = append(frame, part[:n]...)
		if whole := rtuSize(frame); whole > 0 {
			size = whole
		}
	}
	return rtuPDU(frame, unit)
}

func (l *line) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil {
		return nil
	}
	s := l.stream
	l.stream = nil
	return s.Close()
}

func dialTCP(address string) func(context.Context) (stream, error) {
	return func(ctx context.Context) (stream, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("modbus: %w", err)
		}
		return c, nil
	}
}
