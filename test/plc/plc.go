// Package plc simulates a device that speaks Modbus, and loses what it was told with its power. Tests may import it; the product never does.
package plc

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// size is how many registers there are, and how many coils.
const size = 100

// Device is a simulated device. Its input registers and discrete inputs are its registers and coils. It is safe for concurrent use.
type Device struct {
	// Listen opens the door for Modbus TCP, each time the power comes; nil for a device that is asked by Do alone.
	Listen func() (net.Listener, error)

	mu        sync.Mutex
	listener  net.Listener
	conns     []net.Conn
	registers [size]uint16
	coils     [size]bool
	writes    []string
}

// PowerOn begins with empty registers.
func (d *Device) PowerOn() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.registers, d.coils = [size]uint16{}, [size]bool{}
	if d.Listen == nil {
		return nil
	}
	l, err := d.Listen()
	if err != nil {
		return err
	}
	d.listener = l
	go d.accept(l)
	return nil
}

func (d *Device) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns = append(d.conns, c)
		d.mu.Unlock()
		go d.serve(c)
	}
}

// PowerOff ends all connections.
func (d *Device) PowerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
	}
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.conns = nil
}

// Hold sets a register as a sensor does.
func (d *Device) Hold(register int, value uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.registers[register] = value
}

// Register is what a register holds.
func (d *Device) Register(register int) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registers[register]
}

// Coil says whether a coil is on.
func (d *Device) Coil(coil int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.coils[coil]
}

// Written are the single registers that were written so far, as register=value.
func (d *Device) Written() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.writes)
}

// serve reads frames: transaction, protocol and length, each two bytes, the unit, and what Do answers.
func (d *Device) serve(c net.Conn) {
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		pdu := make([]byte, max(0, int(binary.BigEndian.Uint16(head[4:]))-1))
		if _, err := io.ReadFull(c, pdu); err != nil || len(pdu) < 5 {
			return
		}
		answer := d.Do(pdu)
		binary.BigEndian.PutUint16(head[4:], uint16(len(answer)+1))
		if _, err := c.Write(append(head, answer...)); err != nil {
			return
		}
	}
}

// Do answers a request of at least 5 bytes: function, address, and a number or value. The functions are those of the Modbus Application
// Protocol Specification V1.1b3, section 6.
func (d *Device) Do(pdu []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	function, at, n := pdu[0], int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	refuse := func(reason byte) []byte { return []byte{function | 0x80, reason} }
	const illegalFunction, illegalAddress = 1, 2
	switch {
	case function < 1 || function > 6 && function != 16:
		return refuse(illegalFunction)
	case at >= size || (function == 3 || function == 4 || function == 16) && at+n > size:
		return refuse(illegalAddress)
	}
	switch function {
	case 1, 2: // read one coil
		out := []byte{function, 1, 0}
		if d.coils[at] {
			out[2] = 1
		}
		return out
	case 3, 4: // read registers
		out := []byte{function, byte(2 * n)}
		for _, r := range d.registers[at : at+n] {
			out = binary.BigEndian.AppendUint16(out, r)
		}
		return out
	case 5: // write one coil
		d.coils[at] = n == 0xff00
	case 6: // write one register
		d.registers[at] = uint16(n)
		d.writes = append(d.writes, fmt.Sprintf("%d=%d", at, n))
	case 16: // write registers
		for i := range n {
			d.registers[at+i] = binary.BigEndian.Uint16(pdu[6+2*i:])
		}
	}
	return pdu[:5]
}
