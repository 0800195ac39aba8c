package devices

import (
	"path/filepath"
	"testing"
)

// example applies one of the manifests for drivers, and gives the node the label that it wants.
func (s *scene) example(name, label string) {
	s.Helper()
	s.server.ApplyFile(filepath.Join("../../../docs/examples", name))
	s.server.Kubectl("label", "node", "edge-node-1", "--overwrite", label)
}

// TestDriversInPods runs the examples that pull no image.
func TestDriversInPods(t *testing.T) {
	s := newScene(t)
	s.fixture("temperature-v1beta1.yaml")
	s.example("mapper-virtual.yaml", "devices=virtual")
	s.server.AwaitField("devicestatus", "temperature-v1", "{.status.state}", "online")
	s.server.AwaitField("devicestatus", "temperature-v1", twinOf("sample-period", "reported"), "500")
	s.modbusInAPod()
}
