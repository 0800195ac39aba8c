package modbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/test/plc"
)

func property(name, kind string, visitor v1beta1.ConfigData) driver.Property {
	return driver.Property{Name: name, Model: v1beta1.ModelProperty{Name: name, Type: kind, AccessMode: "ReadWrite"}, Visitor: visitor}
}

func at(register string, offset, limit int64, more ...any) v1beta1.ConfigData {
	c := v1beta1.ConfigData{"register": register, "offset": offset, "limit": limit}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

func TestPLC(t *testing.T) {
	p, address := newPLC(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	properties := []driver.Property{
		property("coil", "BOOLEAN", at("CoilRegister", 3, 1)),
		property("small", "INT", at("HoldingRegister", 0, 1)),
		property("scaled", "DOUBLE", at("HoldingRegister", 1, 1, "scale", 0.1)),
		property("float", "FLOAT", at("HoldingRegister", 2, 2, "isRegisterSwap", true)),
		property("swapped", "INT", at("HoldingRegister", 4, 2, "isSwap", true, "dataType", "uint32")),
		property("name", "STRING", at("HoldingRegister", 10, 4)),
		property("double", "DOUBLE", at("HoldingRegister", 20, 4)),
		property("far", "INT", at("HoldingRegister", 99, 2)),
	}
	d, err := NewOpener().Open(driver.Config{Protocol: v1beta1.ConfigData{"ip": host, "port": port, "slaveID": int64(2)}, Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, text := range []string{"true", "-7", "12.3", "-1.5", "4000000000", "pump 1", "3.141592653589793"} {
		if err := d.Write(ctx, properties[i], text); err != nil {
			t.Errorf("write %s: %v", properties[i].Name, err)
		}
		if got, err := d.Read(ctx, properties[i]); err != nil || got != text {
			t.Errorf("%s: %q, %v, want %q", properties[i].Name, got, err, text)
		}
	}
	for register, want := range map[int]uint16{0: 0xfff9, 1: 123, 3: 0xbfc0, 4: 0x6bee} {
		if got := p.Register(register); got != want {
			t.Errorf("register %d is %x, want %x", register, got, want)
		}
	}
	if !p.Coil(3) {
		t.Error("coil 3 is off")
	}
	for i, text := range map[int]string{1: "32768", 2: "5000", 4: "-1", 5: "much too long", 0: "perhaps"} {
		if err := d.Write(ctx, properties[i], text); err == nil {
			t.Errorf("%s was set to %s", properties[i].Name, text)
		}
	}
	refused := (*Exception)(nil)
	if _, err := d.Read(ctx, properties[7]); !errors.As(err, &refused) || !strings.Contains(err.Error(), "illegal data address") {
		t.Errorf("a register that is not there: %v", err)
	}
	p.PowerOff()
	if _, err := d.Read(ctx, properties[1]); err == nil {
		t.Error("a device without power answers")
	}
	powerOn(t, p)
	if got, err := d.Read(ctx, properties[1]); err != nil || got != "0" {
		t.Errorf("after a power cycle: %q, %v", got, err)
	}
}

func TestBadConfiguration(t *testing.T) {
	good := at("HoldingRegister", 1, 1)
	for want, cfg := range map[string]driver.Config{
		"ip: missing":          {},
		"port: 70000":          {Protocol: v1beta1.ConfigData{"ip": "a", "port": int64(70000)}},
		"slaveID: 300":         {Protocol: v1beta1.ConfigData{"ip": "a", "slaveID": int64(300)}},
		"baudRate":             {Protocol: v1beta1.ConfigData{"serialPort": "/dev/x", "baudRate": int64(1)}},
		"parity":               {Protocol: v1beta1.ConfigData{"serialPort": "/dev/x", "parity": "some"}},
		"register: \"\" is":    {Properties: []driver.Property{property("p", "INT", nil)}},
		"offset: want":         {Properties: []driver.Property{property("p", "INT", at("CoilRegister", -1, 1))}},
		"limit: want 1":        {Properties: []driver.Property{property("p", "INT", at("CoilRegister", 1, 2))}},
		"has 1, 2 or 4":        {Properties: []driver.Property{property("p", "INT", at("HoldingRegister", 1, 3))}},
		"float32 has 2":        {Properties: []driver.Property{property("p", "FLOAT", at("HoldingRegister", 1, 1, "dataType", "float32"))}},
		"property p: visitors": {Properties: []driver.Property{property("q", "INT", good), property("p", "INT", at("x", 1, 1))}},
	} {
		if _, err := NewOpener().Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRTU(t *testing.T) {
	// The example of MODBUS over Serial Line V1.02, appendix B: CRC of 02 07 is 41 12.
	if got := rtuFrame(2, []byte{7}); string(got) != "\x02\x07\x41\x12" {
		t.Errorf("% x", got)
	}
	far, near := net.Pipe()
	p := &plc.Device{}
	p.Hold(5, 77)
	go func() {
		request := make([]byte, 8)
		for {
			if _, err := far.Read(request); err != nil {
				return
			}
			pdu, err := rtuPDU(request, 9)
			if err != nil {
				return
			}
			for _, b := range rtuFrame(9, p.Do(pdu)) { // byte by byte, as a line does
				if _, err := far.Write([]byte{b}); err != nil {
					return
				}
			}
		}
	}()
	l := &line{serial: true, dial: func(context.Context) (stream, error) { return near, nil }}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if data, err := l.ask(ctx, 9, readPDU(readHolding, 5, 1)); err != nil || string(data) != "\x00\x4d" {
		t.Errorf("% x, %v", data, err)
	}
	if _, err := l.ask(ctx, 9, readPDU(readHolding, 99, 2)); err == nil || !strings.Contains(err.Error(), "illegal data address") {
		t.Errorf("%v", err)
	}
	if _, err := l.ask(ctx, 9, writePDU(6, []byte{1, 2})); err != nil || p.Register(6) != 0x102 {
		t.Errorf("%x, %v", p.Register(6), err)
	}
	_ = l.close()
}

func FuzzAnswers(f *testing.F) {
	f.Add(tcpFrame(1, 1, []byte{3, 2, 0, 1}), uint16(1))
	f.Add(rtuFrame(1, []byte{3, 2, 0, 1}), uint16(1))
	f.Add([]byte{0x83, 2}, uint16(1))
	f.Add([]byte{3, 255, 1}, uint16(127))
	f.Add([]byte{0, 1, 0, 0, 0xff, 0xff, 1, 3}, uint16(0))
	f.Add(rtuFrame(1, []byte{0x90, 2}), uint16(9))
	f.Fuzz(func(t *testing.T, data []byte, count uint16) {
		request := readPDU(readHolding, 1, count)
		if data2, err := payload(request, data); err == nil && len(data2) != 2*int(count) {
			t.Errorf("%d bytes for %d registers", len(data2), count)
		}
		if len(data) >= header {
			if n, err := tcpHeader(data[:header], 1, 1); err == nil && (n < 2 || n > maxPDU) {
				t.Errorf("size %d", n)
			}
		}
		_ = rtuSize(data)
		_, _ = rtuPDU(data, 1)
	})
}
