package devices

import (
	"strings"
	"testing"
)

// refused applies what the API server must not take.
func (s *scene) refused(yaml, reason string) {
	s.Helper()
	if err := s.server.TryApply(yaml); err == nil || !strings.Contains(err.Error(), reason) {
		s.Errorf("%s\ngot %v, want %s", yaml, err, reason)
	}
}

func TestFixturesAndRefusals(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{"temperature-v1beta1.yaml", "temperature-v1alpha2.yaml"} {
		s.fixture(name)
		s.fixture(name) // and once more changes nothing
	}
	if table := s.server.Kubectl("get", "device"); !strings.Contains(table, "temperature-v1") || !strings.Contains(table, "edge-node-1") {
		t.Errorf("table\n%s", table)
	}
	// Each version shows what the other wrote.
	s.server.AwaitField("device.v1alpha2.devices.kubeedge.io", "temperature-v1", "{.status.twins[?(@.propertyName=='sample-period')].desired.value}", "500")
	s.server.AwaitField("device.v1beta1.devices.kubeedge.io", "temperature", "{.spec.nodeName}", "edge-node-1")
	s.server.AwaitField("device.v1alpha2.devices.kubeedge.io", "temperature", "{.status.twins[0].propertyName}", "temperature-status")
	s.server.AwaitField("devicemodel.v1beta1.devices.kubeedge.io", "temperature-model", "{.spec.properties[0].type}", "STRING")
	head := "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {name: bad}\nspec:\n  nodeName: edge-node-1\n"
	s.refused(head+"  deviceModelRef: {name: none}\n", `there is no DeviceModel "none"`)
	for property, reason := range map[string]string{
		"{name: pressure}": "is no property of model temperature-model-v1",
		"{name: sample-period, desired: {value: '99'}}":   "spec.properties[0].desired.value: Forbidden: 99 is below the minimum 100",
		"{name: sample-period, desired: {value: 'slow'}}": "is not a whole number",
		"{name: temperature, desired: {value: '20'}}":     "the property is ReadOnly",
	} {
		s.refused(head+"  deviceModelRef: {name: temperature-model-v1}\n  properties: ["+property+"]\n", reason)
	}
	s.nodeSpeaksForItself()
}

// nodeSpeaksForItself tries what a node could do to devices with its own key.
func (s *scene) nodeSpeaksForItself() {
	s.Helper()
	s.server.Kubectl("patch", "device", "temperature", "--type=json", "-p", `[{"op":"replace","path":"/spec/nodeName","value":"other"}]`)
	as := []string{"/opt/kedge/bin/kedge", "kubectl", "--kubeconfig", "/var/lib/kedge/agent/kedgecontroller.kubeconfig"}
	status := "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceStatus\nmetadata: {name: temperature, annotations: {devices.kedge.io/node: %NODE}}\nstatus: {state: online}\n"
	for node, reason := range map[string]string{"edge-node-1": "hangs on node", "other": "its own devices only"} {
		if _, err := s.node.RunInput(strings.Replace(status, "%NODE", node, 1), append(as, "create", "-f", "-")...); err == nil || !strings.Contains(err.Error(), reason) {
			s.Errorf("a status as %s: %v", node, err)
		}
	}
	for patch, name := range map[string]string{
		`[{"op":"add","path":"/spec/properties/1/desired","value":{"value":"700"}}]`: "temperature",
		`[{"op":"replace","path":"/spec/nodeName","value":"other"}]`:                 "temperature-v1",
		`[{"op":"replace","path":"/spec/protocol/configData","value":{"seed":8}}]`:   "temperature-v1",
		`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`:                 "temperature-v1",
	} {
		if out, err := s.node.Run(append(as, "patch", "device", name, "--type=json", "-p", patch)...); err == nil {
			s.Errorf("%s of %s: %s", patch, name, out)
		}
	}
	if _, err := s.node.Run(append(as, "patch", "device", "temperature-v1", "--type=json", "-p",
		`[{"op":"add","path":"/spec/properties/1/desired","value":{"value":"700"}}]`)...); err != nil {
		s.Errorf("a node cannot tell what was set there: %v", err)
	}
}
