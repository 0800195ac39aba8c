// Package modbus drives devices that speak Modbus over TCP or a serial line (RTU). Frames are those of the MODBUS Application Protocol
// Specification V1.1b3, the Messaging on TCP/IP Implementation Guide V1.0b and MODBUS over Serial Line V1.02. Rooms of twin import it.
package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Function codes.
const (
	readCoils      = 0x01
	readDiscretes  = 0x02
	readHolding    = 0x03
	readInput      = 0x04
	writeCoil      = 0x05
	writeRegister  = 0x06
	writeRegisters = 0x10
	exceptionBit   = 0x80
)

const (
	// maxPDU is the size of the largest protocol data unit.
	maxPDU = 253
	// maxRegisters is the most registers that one request reads.
	maxRegisters = 125
	// header is the size of the MBAP header: transaction, protocol, length, unit.
	header = 7
	coilOn = 0xff00
)

// Exception is a refusal of the device itself: the connection is fine.
type Exception struct{ Function, Code byte }

// Error says in words what the device answered.
func (e *Exception) Error() string {
	names := map[byte]string{
		1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure", 5: "acknowledge",
		6: "device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "gateway target does not answer",
	}
	name := names[e.Code]
	if name == "" {
		name = "unknown exception"
	}
	return fmt.Sprintf("the device refuses function %d: %s (%d)", e.Function, name, e.Code)
}

// readPDU asks for count items from address on.
func readPDU(function byte, address, count uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{function}, address), count)
}

// writePDU sets registers.
func writePDU(address uint16, registers []byte) []byte {
	count := len(registers) / 2
	if count == 1 {
		return append(binary.BigEndian.AppendUint16([]byte{writeRegister}, address), registers...)
	}
	pdu := binary.BigEndian.AppendUint16([]byte{writeRegisters}, address)
	pdu = binary.BigEndian.AppendUint16(pdu, uint16(count))
	return append(append(pdu, byte(len(registers))), registers...)
}

// coilPDU sets one coil.
func coilPDU(address uint16, on bool) []byte {
	value := uint16(0)
	if on {
		value = coilOn
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{writeCoil}, address), value)
}

// payload checks the answer to a request and returns what was read, or nothing for a write.
func payload(request, answer []byte) ([]byte, error) {
	if len(answer) < 2 || len(answer) > maxPDU {
		return nil, fmt.Errorf("answer of %d bytes", len(answer))
	}
	function := request[0]
	if answer[0] == function|exceptionBit {
		return nil, &Exception{function, answer[1]}
	}
	if answer[0] != function {
		return nil, fmt.Errorf("answer to function %d is of function %d", function, answer[0])
	}
	if function > readInput {
		if len(answer) != 5 || answer[1] != request[1] || answer[2] != request[2] {
			return nil, errors.New("answer to a write does not repeat its address")
		}
		return nil, nil
	}
	count := int(binary.BigEndian.Uint16(request[3:]))
	want := 2 * count
	if function <= readDiscretes {
		want = (count + 7) / 8
	}
	if int(answer[1]) != want || len(answer) != 2+want {
		return nil, fmt.Errorf("answer holds %d bytes, want %d", len(answer)-2, want)
	}
	return answer[2:], nil
}

// tcpFrame puts a request into an MBAP frame.
func tcpFrame(transaction uint16, unit byte, pdu []byte) []byte {
	frame := binary.BigEndian.AppendUint16(nil, transaction)
	frame = append(frame, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(pdu)+1))
	return append(append(frame, unit), pdu...)
}

// tcpHeader reads an MBAP header and returns the size of what follows it.
func tcpHeader(h []byte, transaction uint16, unit byte) (int, error) {
	if len(h) != header {
		return 0, errors.New("short header")
	}
	size := int(binary.BigEndian.Uint16(h[4:]))
	switch {
	case binary.BigEndian.Uint16(h) != transaction:
		return 0, errors.New("answer to another request")
	case h[2] != 0 || h[3] != 0:
		return 0, errors.New("answer is not Modbus")
	case size < 3 || size > maxPDU+1:
		return 0, fmt.Errorf("answer claims a length of %d", size)
	case h[6] != unit:
		return 0, fmt.Errorf("answer of unit %d, want %d", h[6], unit)
	}
	return size - 1, nil
}

// rtuFrame puts a request into a frame of a serial line.
func rtuFrame(unit byte, pdu []byte) []byte {
	frame := append([]byte{unit}, pdu...)
	return binary.LittleEndian.AppendUint16(frame, crc(frame))
}

// rtuSize is the size of the whole frame that begins with head, or 0 when more of it is needed to know.
func rtuSize(head []byte) int {
	switch {
	case len(head) < 3:
		return 0
	case head[1]&exceptionBit != 0:
		return 5
	case head[1] <= readInput:
		return 3 + int(head[2]) + 2
	}
	return 8
}

// rtuPDU checks a frame of a serial line and returns what is in it.
func rtuPDU(frame []byte, unit byte) ([]byte, error) {
	if len(frame) < 5 {
		return nil, fmt.Errorf("frame of %d bytes", len(frame))
	}
	body := frame[:len(frame)-2]
	if binary.LittleEndian.Uint16(frame[len(frame)-2:]) != crc(body) {
		return nil, errors.New("checksum is wrong")
	}
	if body[0] != unit {
		return nil, fmt.Errorf("answer of unit %d, want %d", body[0], unit)
	}
	return body[1:], nil
}

// crc is CRC-16/MODBUS: polynomial 0xA001 reflected, start 0xFFFF.
func crc(data []byte) uint16 {
	sum := uint16(0xffff)
	for _, b := range data {
		sum ^= uint16(b)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0xa001
			} else {
				sum >>= 1
			}
		}
	}
	return sum
}
