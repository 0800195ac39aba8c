package desk

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// FuzzAnswer asks a node with one device whatever there is to ask: each question is answered on its own topic, in JSON, and what the
// model forbids does not get into the twin.
func FuzzAnswer(f *testing.F) {
	h, err := hub.New(hub.Config{Dir: f.TempDir(), Node: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	model := &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Spec: v1beta1.DeviceModelSpec{Properties: []v1beta1.ModelProperty{
		{Name: "speed", Type: "INT", AccessMode: "ReadWrite", Minimum: "0", Maximum: "1000"}, {Name: "heat", Type: "FLOAT", AccessMode: "ReadOnly"},
	}}}
	device := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d1"}, Spec: v1beta1.DeviceSpec{DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, NodeName: "n1"}}
	for _, err := range []error{h.PutModel(model), h.PutDevice(device)} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Add("$hw/events/device/d1/twin/update", []byte(`{"event_id":"e","twin":{"speed":{"expected":{"value":"7"},"actual":{"value":"8","metadata":{"timestamp":5}}}}}`))
	f.Add("$hw/events/device/default/d1/twin/update", []byte(`{"twin":{"heat":{"expected":{"value":"1"}},"x":null,"mine":{"actual":{"value":"{}"},"metadata":{"type":"string"}}}}`))
	f.Add("$hw/events/device/d1/twin/get", []byte(`null`))
	f.Add("$hw/events/device/d1/state/update", []byte(`{"state":"OK"}`))
	f.Add("$hw/events/node/n1/membership/get", []byte(``))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		question, ok := message.Parse(topic)
		if !ok {
			return
		}
		answered := false
		New(Config{Hub: h, Log: slog.New(slog.DiscardHandler), Publish: func(to string, answer []byte) error {
			var base message.Base
			if err := json.Unmarshal(answer, &base); err != nil || base.Timestamp == 0 {
				t.Errorf("%s: %v", answer, err)
			}
			answered = answered || to == question.Answer()
			if _, again := message.Parse(to); again || strings.ContainsAny(to, "+#") {
				t.Errorf("%s is answered on %s", topic, to)
			}
			return nil
		}}).Answer(question, payload)
		if !answered {
			t.Errorf("%s is not answered", topic)
		}
		v, _ := h.Get("default/d1")
		if d := v.State.Twins["heat"].Desired; d != nil {
			t.Errorf("a sensor was set to %s", d.Value)
		}
		if len(v.State.Twins) > 200 {
			t.Errorf("the device has %d properties", len(v.State.Twins))
		}
	})
}
