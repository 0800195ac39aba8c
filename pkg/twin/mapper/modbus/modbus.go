package modbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
)

// Protocol is the name of the protocol in devices.
const Protocol = "modbus"

// Opener opens devices. Those behind one address share its connection.
type Opener struct {
	mu    sync.Mutex
	lines map[string]*line
}

// NewOpener connects nothing.
func NewOpener() *Opener { return &Opener{lines: map[string]*line{}} }

type device struct {
	opener *Opener
	key    string
	line   *line
	unit   byte
	places map[string]place
}

// Open takes from protocol.configData: ip and port (502) with framing (tcp, or rtu for a serial line behind a gateway), or serialPort with
// baudRate (9600), dataBits (8), parity (none) and stopBits (1); and slaveID (1). Visitors have register, offset, limit, scale, isSwap, isRegisterSwap and dataType.
func (o *Opener) Open(cfg driver.Config) (driver.Device, error) {
	d := &device{opener: o, places: map[string]place{}}
	unit, ok := driver.Whole(cfg.Protocol, "slaveID")
	if !ok {
		unit = 1
	}
	if unit < 0 || unit > 247 {
		return nil, fmt.Errorf("protocol.configData.slaveID: %d is not from 0 to 247", unit)
	}
	d.unit = byte(unit)
	for _, p := range cfg.Properties {
		at, err := placeOf(p)
		if err != nil {
			return nil, fmt.Errorf("property %s: visitors.configData.%w", p.Name, err)
		}
		d.places[p.Name] = at
	}
	key, made, err := lineOf(cfg.Protocol)
	if err != nil {
		return nil, fmt.Errorf("protocol.configData.%w", err)
	}
	if made.serial && unit == 0 {
		return nil, errors.New("protocol.configData.slaveID: 0 means all devices of a serial line, and none of them answers")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lines[key] == nil {
		o.lines[key] = made
	}
	d.key, d.line = key, o.lines[key]
	d.line.users++
	return d, nil
}

// lineOf is the way to a device, and what identifies it.
func lineOf(c v1beta1.ConfigData) (string, *line, error) {
	if path := driver.Text(c, "serialPort"); path != "" {
		p := serialPort{path: path, baud: 9600, data: 8, stop: 1, parity: driver.Text(c, "parity")}
		for name, field := range map[string]*int64{"baudRate": &p.baud, "dataBits": &p.data, "stopBits": &p.stop} {
			if n, ok := driver.Whole(c, name); ok {
				*field = n
			}
		}
		if _, err := p.flags(); err != nil {
			return "", nil, err
		}
		return path, &line{dial: p.open, serial: true, quiet: p.quiet()}, nil
	}
	ip := driver.Text(c, "ip")
	if ip == "" {
		return "", nil, errors.New("ip: missing: give ip and port, or serialPort")
	}
	port, ok := driver.Whole(c, "port")
	if !ok {
		port = 502
	}
	if port < 1 || port > 65535 {
		return "", nil, fmt.Errorf("port: %d is not from 1 to 65535", port)
	}
	address := net.JoinHostPort(ip, strconv.FormatInt(port, 10))
	switch framing := driver.Text(c, "framing"); framing {
	case "", "tcp":
		return address, &line{dial: dialTCP(address)}, nil
	case "rtu":
		return "rtu " + address, &line{dial: dialTCP(address), serial: true}, nil
	default:
		return "", nil, fmt.Errorf("framing: %q is neither tcp nor rtu", framing)
	}
}

// Read implements driver.Device.
func (d *device) Read(ctx context.Context, p driver.Property) (string, error) {
	at := d.places[p.Name]
	data, err := d.line.ask(ctx, d.unit, readPDU(at.read, at.address, at.count))
	if err != nil {
		return "", err
	}
	return at.decode(p, data)
}

// Write implements driver.Device.
func (d *device) Write(ctx context.Context, p driver.Property, value string) error {
	at := d.places[p.Name]
	if !at.writable {
		return errors.New("registers of this kind cannot be written")
	}
	if at.coil {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		_, err = d.line.ask(ctx, d.unit, coilPDU(at.address, on))
		return err
	}
	registers, err := at.encode(value)
	if err != nil {
		return err
	}
	_, err = d.line.ask(ctx, d.unit, writePDU(at.address, registers))
	return err
}

// Close implements driver.Device.
func (d *device) Close() error {
	d.opener.mu.Lock()
	defer d.opener.mu.Unlock()
	d.line.users--
	if d.line.users > 0 {
		return nil
	}
	delete(d.opener.lines, d.key)
	return d.line.close()
}
