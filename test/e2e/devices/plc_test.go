package devices

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/kedge-io/kedge/test/lab"
)

// plc is a simulated device that speaks Modbus TCP in the network of a machine. It has 50 holding registers and no others.
type plc struct {
	t       *testing.T
	machine *lab.Node

	mu        sync.Mutex
	listener  net.Listener
	conns     []net.Conn
	registers [50]uint16
	writes    []string
}

const plcAddress = "127.0.0.1:1502"

// powerOn begins with empty registers.
func (p *plc) powerOn() {
	l, err := p.machine.Listen("tcp", plcAddress)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.registers = l, [50]uint16{}
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
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	_ = p.listener.Close()
}

// hold sets a register as a sensor does.
func (p *plc) hold(register int, value uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registers[register] = value
}

// written are the writes so far, as register=value.
func (p *plc) written() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.writes)
}

func (p *plc) serve(c net.Conn) {
	for {
		head := make([]byte, 7) // MBAP: transaction, protocol, length, unit
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		pdu := make([]byte, int(binary.BigEndian.Uint16(head[4:]))-1)
		if _, err := io.ReadFull(c, pdu); err != nil || len(pdu) < 5 {
			return
		}
		answer := p.do(pdu)
		binary.BigEndian.PutUint16(head[4:], uint16(len(answer)+1))
		if _, err := c.Write(append(head, answer...)); err != nil {
			return
		}
	}
}

// do answers functions 3 (read holding registers) and 6 (write one).
func (p *plc) do(pdu []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	switch {
	case pdu[0] == 3 && at+n <= len(p.registers):
		out := []byte{3, byte(2 * n)}
		for _, r := range p.registers[at : at+n] {
			out = binary.BigEndian.AppendUint16(out, r)
		}
		return out
	case pdu[0] == 6 && at < len(p.registers):
		p.registers[at] = uint16(n)
		p.writes = append(p.writes, fmt.Sprintf("%d=%d", at, n))
		return pdu
	}
	return []byte{pdu[0] | 0x80, 2} // illegal data address
}

const press = `
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: press}
spec:
  protocol: modbus
  properties:
  - {name: heat, type: FLOAT, accessMode: ReadOnly, minimum: "0", maximum: "100"}
  - {name: force, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "60000"}
  - {name: far, type: INT, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: press-1}
spec:
  deviceModelRef: {name: press}
  nodeName: edge-node-1
  protocol: {protocolName: modbus, configData: {ip: 127.0.0.1, port: 1502, slaveID: 1}}
  properties:
  - {name: heat, collectCycle: 200, reportCycle: 200, reportToCloud: true, visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 1, scale: 0.1}}}
  - {name: force, desired: {value: "40000"}, collectCycle: 200, reportCycle: 200, reportToCloud: true,
     visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 2, dataType: uint16, restore: true}}}
  - {name: far, collectCycle: 200, reportCycle: 200, reportToCloud: true, visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 500}}}
`

// modbusInAPod runs the example with the Modbus driver against a simulated device on the node.
func (s *scene) modbusInAPod() {
	s.Helper()
	p := &plc{t: s.T, machine: s.node}
	p.powerOn()
	s.Cleanup(p.powerOff)
	p.hold(1, 215)
	s.server.Apply(press)
	s.example("mapper-modbus.yaml", "devices=modbus")
	s.awaitField("devicestatus", "press-1", "{.status.state}", "online")
	s.awaitField("devicestatus", "press-1", twinOf("heat", "reported"), "21.5")
	s.awaitField("devicestatus", "press-1", twinOf("force", "reported"), "40000")
	p.hold(1, 2000) // above the maximum: kept, and flagged
	s.awaitField("devicestatus", "press-1", twinOf("heat", "reported"), "200")
	s.awaitField("devicestatus", "press-1", "{.status.twins[?(@.propertyName=='heat')].reported.metadata.problem}", "200 is above the maximum 100")
	if got, err := s.field("devicestatus", "press-1", twinOf("far", "reported")); err != nil || got != "" {
		s.Errorf("a register that is not there is %q, %v", got, err)
	}
	for value, reason := range map[string]string{"hot": "is not a whole number", "70000": "above the maximum", "-1": "below the minimum"} {
		if out, err := s.node.Run("/opt/kedge/bin/kedge", "device", "set", "press-1", "force", value); err == nil {
			s.Errorf("force was set to %s: %s, not refused with %q", value, out, reason)
		}
	}
	p.powerOff()
	s.awaitField("devicestatus", "press-1", "{.status.state}", "offline")
	s.node.Kedge("device", "set", "press-1", "force", "41000") // while it has no power
	p.powerOn()
	s.awaitField("devicestatus", "press-1", "{.status.state}", "online")
	s.awaitField("devicestatus", "press-1", twinOf("force", "reported"), "41000")
	s.awaitField("devicestatus", "press-1", twinOf("heat", "reported"), "0")
	if got := p.written(); got != "[2=40000 2=41000]" {
		s.Errorf("the device was told %s", got)
	}
}
