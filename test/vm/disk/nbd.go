package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// The NBD protocol, fixed newstyle, simple replies: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
const (
	nbdMagic       = 0x4e42444d41474943
	nbdOptionMagic = 0x49484156454f5054
	nbdOptionReply = 0x3e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1

	nbdOptExportName = 1
	nbdOptAbort      = 2
	nbdOptInfo       = 6
	nbdOptGo         = 7

	nbdRepAck      = 1
	nbdRepInfo     = 3
	nbdRepErrUnsup = 1<<31 + 1

	nbdFlags = 1<<0 | 1<<2 | 1<<3 // has flags, flush, FUA

	nbdCmdRead  = 0
	nbdCmdWrite = 1
	nbdCmdDisc  = 2
	nbdCmdFlush = 3
	nbdFlagFUA  = 1 << 0

	nbdErrIO    = 5
	nbdErrInval = 22

	nbdMaxRequest = 64 << 20
	nbdMaxOption  = 64 << 10
)

// Serve speaks NBD with one client until it disconnects or dies; both return nil. Requests are answered in order, so a flush covers
// every write answered before.
func (d *Disk) Serve(conn io.ReadWriter) error {
	c := &nbdConn{disk: d, r: bufio.NewReaderSize(conn, 1<<20), w: bufio.NewWriterSize(conn, 1<<20)}
	err := c.handshake()
	if err == nil {
		err = c.serve()
	}
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

type nbdConn struct {
	disk *Disk
	r    *bufio.Reader
	w    *bufio.Writer
}

// send writes values in network order and flushes.
func (c *nbdConn) send(values ...any) error {
	for _, v := range values {
		if err := binary.Write(c.w, binary.BigEndian, v); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// handshake offers the one disk under any name.
func (c *nbdConn) handshake() error {
	if err := c.send(uint64(nbdMagic), uint64(nbdOptionMagic), uint16(nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return err
	}
	var clientFlags uint32
	if err := binary.Read(c.r, binary.BigEndian, &clientFlags); err != nil {
		return err
	}
	for {
		var opt struct {
			Magic       uint64
			Option, Len uint32
		}
		if err := binary.Read(c.r, binary.BigEndian, &opt); err != nil {
			return err
		}
		if opt.Magic != nbdOptionMagic || opt.Len > nbdMaxOption {
			return fmt.Errorf("nbd: bad option %+v", opt)
		}
		if _, err := io.CopyN(io.Discard, c.r, int64(opt.Len)); err != nil {
			return err
		}
		done, err := c.option(opt.Option, clientFlags)
		if done || err != nil {
			return err
		}
	}
}

// option answers one option and says whether the transmission phase begins.
func (c *nbdConn) option(option, clientFlags uint32) (bool, error) {
	reply := func(kind uint32, body ...any) error {
		size := 0
		for _, b := range body {
			size += binary.Size(b)
		}
		head := []any{uint64(nbdOptionReply), option, kind, uint32(size)}
		return c.send(append(head, body...)...)
	}
	size := uint64(c.disk.Size())
	switch option {
	case nbdOptExportName:
		padding := make([]byte, 124)
		if clientFlags&nbdNoZeroes != 0 {
			padding = nil
		}
		return true, c.send(size, uint16(nbdFlags), padding)
	case nbdOptInfo, nbdOptGo:
		if err := reply(nbdRepInfo, uint16(0), size, uint16(nbdFlags)); err != nil {
			return false, err
		}
		return option == nbdOptGo, reply(nbdRepAck)
	case nbdOptAbort:
		return false, errors.Join(reply(nbdRepAck), io.EOF)
	default:
		return false, reply(nbdRepErrUnsup)
	}
}

// nbdHeader is a request as it arrives.
type nbdHeader struct {
	Magic         uint32
	Flags, Type   uint16
	Cookie, Start uint64
	Len           uint32
}

// serve answers requests until the client disconnects.
func (c *nbdConn) serve() error {
	for {
		var h nbdHeader
		if err := binary.Read(c.r, binary.BigEndian, &h); err != nil {
			return err
		}
		if h.Magic != nbdRequest || h.Len > nbdMaxRequest {
			return fmt.Errorf("nbd: bad request %+v", h)
		}
		if h.Type == nbdCmdDisc {
			return nil
		}
		if err := c.request(h); err != nil {
			return err
		}
	}
}

// request carries out one request; only a broken stream is an error here, the disk's own errors go to the client.
func (c *nbdConn) request(h nbdHeader) error {
	var data []byte
	var err error
	switch h.Type {
	case nbdCmdRead:
		data = make([]byte, h.Len)
		_, err = c.disk.ReadAt(data, int64(h.Start))
	case nbdCmdWrite:
		buf := make([]byte, h.Len)
		if _, err := io.ReadFull(c.r, buf); err != nil {
			return err
		}
		if h.Flags&nbdFlagFUA != 0 {
			err = c.disk.WriteThrough(buf, int64(h.Start))
		} else {
			_, err = c.disk.WriteAt(buf, int64(h.Start))
		}
	case nbdCmdFlush:
		err = c.disk.Flush()
	default:
		return c.send(uint32(nbdReply), uint32(nbdErrInval), h.Cookie)
	}
	if err != nil {
		return c.send(uint32(nbdReply), uint32(nbdErrIO), h.Cookie)
	}
	return c.send(uint32(nbdReply), uint32(0), h.Cookie, data)
}
