package modbus

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// plc is a simulated device with 100 registers and coils.
type plc struct {
	t         *testing.T
	mu        sync.Mutex
	registers [100]uint16
	coils     [100]bool
	listener  net.Listener
	conns     []net.Conn
	address   string
}

func newPLC(t *testing.T) *plc {
	p := &plc{t: t, address: "127.0.0.1:0"}
	p.powerOn()
	t.Cleanup(p.powerOff)
	return p
}

func (p *plc) powerOn() {
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.address, p.registers, p.coils = l, l.Addr().String(), [100]uint16{}, [100]bool{}
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			go p.serve(c)
		}
	}()
}

func (p *plc) powerOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *plc) serve(c net.Conn) {
	for {
		head := make([]byte, header)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		pdu := make([]byte, binary.BigEndian.Uint16(head[4:])-1)
		if _, err := io.ReadFull(c, pdu); err != nil {
			return
		}
		answer := tcpFrame(binary.BigEndian.Uint16(head), head[6], p.do(pdu))
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (p *plc) do(pdu []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	address, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	refuse := []byte{pdu[0] | exceptionBit, 2}
	switch pdu[0] {
	case readHolding, readInput:
		if address+n > len(p.registers) {
			return refuse
		}
		out := []byte{pdu[0], byte(2 * n)}
		for _, r := range p.registers[address : address+n] {
			out = binary.BigEndian.AppendUint16(out, r)
		}
		return out
	case readCoils, readDiscretes:
		if address >= len(p.coils) {
			return refuse
		}
		out := []byte{pdu[0], 1, 0}
		if p.coils[address] {
			out[2] = 1
		}
		return out
	case writeCoil:
		p.coils[address] = n == coilOn
		return pdu
	case writeRegister:
		p.registers[address] = uint16(n)
		return pdu
	case writeRegisters:
		for i := range n {
			p.registers[address+i] = binary.BigEndian.Uint16(pdu[6+2*i:])
		}
		return pdu[:5]
	}
	return []byte{pdu[0] | exceptionBit, 1}
}
