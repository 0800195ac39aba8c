package wire

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/protobuf/proto"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

func example() (*v1beta1.Device, v1beta1.Status) {
	d := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "d"}, Spec: v1beta1.DeviceSpec{
		DeviceModelRef: &v1beta1.ModelRef{Name: "m"},
		Protocol:       v1beta1.ProtocolConfig{ProtocolName: "x", ConfigData: v1beta1.ConfigData{"large": int64(1<<53 + 1), "half": 0.5, "yes": true, "text": "t"}},
		Properties: []v1beta1.Property{{
			Name: "p", Desired: &v1beta1.Value{Value: "5", Metadata: map[string]string{"a": "b"}}, CollectCycle: 10, ReportCycle: 20, ReportToCloud: true,
			Visitors: &v1beta1.Visitor{ProtocolName: "x", ConfigData: v1beta1.ConfigData{}},
			PushMethod: &v1beta1.PushMethod{
				HTTP: &v1beta1.PushHTTP{HostName: "h", Port: 1, RequestPath: "p", Timeout: 2}, MQTT: &v1beta1.PushMQTT{Address: "a", Topic: "t", QoS: 1, Retained: true},
				OTEL:     &v1beta1.PushOTEL{EndpointURL: "e"},
				DBMethod: &v1beta1.PushDatabase{Influxdb2: &v1beta1.PushInfluxdb2{Client: &v1beta1.InfluxClient{URL: "u"}, Data: &v1beta1.InfluxData{Measurement: "m"}}},
			},
		}},
		Methods: []v1beta1.Method{{Name: "go", PropertyNames: []string{"p"}}}, StateReport: &v1beta1.StateReport{ReportToCloud: true, ReportCycle: 7},
	}}
	return d, v1beta1.Status{Twins: []v1beta1.Twin{{PropertyName: "p", Reported: &v1beta1.Value{Value: "4"}, ObservedDesired: &v1beta1.Value{Value: "3"}}}}
}

func TestThereAndBack(t *testing.T) {
	d, status := example()
	m, err := Device(d, status)
	if err != nil {
		t.Fatal(err)
	}
	got, gotStatus, err := FromDevice(m)
	if err != nil || !reflect.DeepEqual(got, d) || !reflect.DeepEqual(gotStatus, status) {
		t.Errorf("%v\ngot  %+v %+v\nwant %+v %+v", err, got, gotStatus, d, status)
	}
}

func TestNumbersArriveAsTheyWereWritten(t *testing.T) {
	for _, want := range []float64{0.1, -2.5, 1e-7, 0.001, 3.14159, 1.5e30} {
		c, err := pack(v1beta1.ConfigData{"scale": want})
		if err != nil {
			t.Fatal(err)
		}
		if back, err := unpack(c); err != nil || back["scale"] != want {
			t.Errorf("%v arrives as %v, %v", want, back, err)
		}
	}
}

func TestOnlyWhatDriversRead(t *testing.T) {
	c, err := pack(v1beta1.ConfigData{"list": []any{int64(1), "a"}, "whole": float64(3), "none": nil})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"list": "StringValue", "whole": "Int64Value", "none": "StringValue"} {
		if got := c.Data[name].TypeUrl; got != "type.googleapis.com/google.protobuf."+want {
			t.Errorf("%s travels as %s", name, got)
		}
	}
	if back, err := unpack(c); err != nil || back["list"] != `[1,"a"]` || back["whole"] != int64(3) {
		t.Errorf("%v, %v", back, err)
	}
}

func FuzzMessages(f *testing.F) {
	d, status := example()
	m, err := Device(d, status)
	if err != nil {
		f.Fatal(err)
	}
	data, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &dmi.Device{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		d, status, err := FromDevice(m)
		if err != nil {
			return
		}
		if _, err := Device(d, status); err != nil {
			t.Errorf("what was read cannot be sent: %v", err)
		}
		_ = FromModel(&dmi.DeviceModel{Name: m.GetName()})
	})
}
