package devices

import (
	"os"
	"testing"
)

// TestDriverInAPod runs the example that pulls no image.
func TestDriverInAPod(t *testing.T) {
	s := newScene(t)
	s.fixture("temperature-v1beta1.yaml")
	example, err := os.ReadFile("../../../docs/examples/mapper-virtual.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.server.Apply(string(example))
	s.server.Kubectl("label", "node", "edge-node-1", "devices=virtual")
	s.awaitField("devicestatus", "temperature-v1", "{.status.state}", "online")
	s.awaitField("devicestatus", "temperature-v1", twinOf("sample-period", "reported"), "500")
}
