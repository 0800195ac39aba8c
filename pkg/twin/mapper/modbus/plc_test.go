package modbus

import (
	"net"
	"testing"

	"github.com/kedge-io/kedge/test/plc"
)

// newPLC is a simulated device that has power, and its address, which stays the same.
func newPLC(t *testing.T) (d *plc.Device, address string) {
	t.Helper()
	address = "127.0.0.1:0"
	d = &plc.Device{Listen: func() (net.Listener, error) {
		l, err := net.Listen("tcp", address)
		if err == nil {
			address = l.Addr().String()
		}
		return l, err
	}}
	powerOn(t, d)
	t.Cleanup(d.PowerOff)
	return d, address
}

func powerOn(t *testing.T, d *plc.Device) {
	t.Helper()
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
}
