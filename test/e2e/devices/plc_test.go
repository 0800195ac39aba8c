package devices

import (
	"fmt"
	"net"

	"github.com/kedge-io/kedge/test/plc"
)

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
	p := &plc.Device{Listen: func() (net.Listener, error) { return s.node.Listen("tcp", "127.0.0.1:1502") }}
	powerOn := func() {
		if err := p.PowerOn(); err != nil {
			s.Fatal(err)
		}
	}
	powerOn()
	s.Cleanup(p.PowerOff)
	p.Hold(1, 215)
	s.server.Apply(press)
	s.example("mapper-modbus.yaml", "devices=modbus")
	s.server.AwaitField("devicestatus", "press-1", "{.status.state}", "online")
	s.server.AwaitField("devicestatus", "press-1", twinOf("heat", "reported"), "21.5")
	s.server.AwaitField("devicestatus", "press-1", twinOf("force", "reported"), "40000")
	p.Hold(1, 2000) // above the maximum: kept, and flagged
	s.server.AwaitField("devicestatus", "press-1", twinOf("heat", "reported"), "200")
	s.server.AwaitField("devicestatus", "press-1", "{.status.twins[?(@.propertyName=='heat')].reported.metadata.problem}", "200 is above the maximum 100")
	if got, err := s.server.Field("devicestatus", "press-1", twinOf("far", "reported")); err != nil || got != "" {
		s.Errorf("a register that is not there is %q, %v", got, err)
	}
	for value, reason := range map[string]string{"hot": "is not a whole number", "70000": "above the maximum", "-1": "below the minimum"} {
		if out, err := s.node.TryKedge("device", "set", "press-1", "force", value); err == nil {
			s.Errorf("force was set to %s: %s, not refused with %q", value, out, reason)
		}
	}
	p.PowerOff()
	s.server.AwaitField("devicestatus", "press-1", "{.status.state}", "offline")
	s.node.Kedge("device", "set", "press-1", "force", "41000") // while it has no power
	powerOn()
	s.server.AwaitField("devicestatus", "press-1", "{.status.state}", "online")
	s.server.AwaitField("devicestatus", "press-1", twinOf("force", "reported"), "41000")
	s.server.AwaitField("devicestatus", "press-1", twinOf("heat", "reported"), "0")
	if got := fmt.Sprint(p.Written()); got != "[2=40000 2=41000]" {
		s.Errorf("the device was told %s", got)
	}
}
