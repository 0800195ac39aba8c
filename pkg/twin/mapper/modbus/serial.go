package modbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serialPort says how a serial line is set.
type serialPort struct {
	path             string
	baud, data, stop int64
	parity           string
}

// speeds are the rates that a line can be set to.
func speeds() map[int64]uint32 {
	return map[int64]uint32{
		1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400,
		57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400,
	}
}

// flags are the control flags of the line.
func (p serialPort) flags() (uint32, error) {
	speed, ok := speeds()[p.baud]
	if !ok {
		return 0, fmt.Errorf("baudRate: a line cannot be set to %d", p.baud)
	}
	sizes := map[int64]uint32{5: unix.CS5, 6: unix.CS6, 7: unix.CS7, 8: unix.CS8}
	size, ok := sizes[p.data]
	if !ok {
		return 0, fmt.Errorf("dataBits: %d is none of 5 to 8", p.data)
	}
	flags := unix.CREAD | unix.CLOCAL | speed | size
	switch strings.ToLower(p.parity) {
	case "none", "n", "":
	case "even", "e":
		flags |= unix.PARENB
	case "odd", "o":
		flags |= unix.PARENB | unix.PARODD
	default:
		return 0, fmt.Errorf("parity: %q is none of none, even, odd", p.parity)
	}
	switch p.stop {
	case 1:
	case 2:
		flags |= unix.CSTOPB
	default:
		return 0, fmt.Errorf("stopBits: %d is neither 1 nor 2", p.stop)
	}
	return flags, nil
}

// quiet is the pause of 3.5 characters that ends a frame; above 19,200 baud the standard fixes it.
func (p serialPort) quiet() time.Duration {
	if p.baud > 19200 {
		return 1750 * time.Microsecond
	}
	return time.Duration(3.5 * 11 * float64(time.Second) / float64(p.baud))
}

// open makes the line raw. The file is non-blocking so that deadlines work.
func (p serialPort) open(context.Context) (stream, error) {
	flags, err := p.flags()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("modbus: %w", err)
	}
	raw := unix.Termios{Cflag: flags, Ispeed: speeds()[p.baud], Ospeed: speeds()[p.baud]}
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := control(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &raw) }); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("modbus: set %s: %w", p.path, err)
	}
	return f, nil
}

// control calls do with the descriptor of a line.
func control(f *os.File, do func(fd int) error) error {
	connection, err := f.SyscallConn()
	if err != nil {
		return err
	}
	failed := connection.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(failed, err)
}

// flush drops what has come in and was not read.
func flush(f *os.File) error {
	return control(f, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) })
}
