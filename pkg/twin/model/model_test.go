package model

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

func TestValue(t *testing.T) {
	property := func(kind, low, high string) v1beta1.ModelProperty {
		return v1beta1.ModelProperty{Type: kind, Minimum: low, Maximum: high}
	}
	for _, tc := range []struct {
		p          v1beta1.ModelProperty
		text, want string
	}{
		{property("INT", "1", "10"), "10", ""},
		{property("int", "1", "10"), "11", "above the maximum 10"},
		{property("INT", "-1", ""), "-2", "below the minimum -1"},
		{property("INT", "", ""), "1.5", "not a whole number"},
		{property("INT", "", ""), "", "not a whole number"},
		{property("FLOAT", "0.5", "1.5"), "0.49", "below"},
		{property("DOUBLE", "", ""), "1e300", ""},
		{property("FLOAT", "", ""), "NaN", "not a number"},
		{property("BOOLEAN", "", ""), "yes", "neither true nor false"},
		{property("BOOLEAN", "", ""), "true", ""},
		{property("STRING", "", ""), `{"json": ["ü", "日本"]}`, ""},
		{property("STRING", "", ""), "\xff", "not UTF-8"},
		{property("STRING", "", ""), strings.Repeat("x", MaxValue), ""},
		{property("STRING", "", ""), strings.Repeat("x", MaxValue+1), "more than 65536"},
		{property("", "", ""), "anything", ""},
	} {
		err := Value(tc.p, tc.text)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %.20q: %v, want %q", tc.p.Type, tc.text, err, tc.want)
		}
	}
}

func exampleModel() *v1beta1.DeviceModel {
	return &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: v1beta1.DeviceModelSpec{
		Protocol: "modbus", ProtocolConfigData: v1beta1.ConfigData{"port": int64(502), "ip": "10.0.0.1"},
		Properties: []v1beta1.ModelProperty{
			{Name: "a", Type: "INT", AccessMode: "ReadWrite", Maximum: "5", Visitors: &v1beta1.Visitor{ProtocolName: "modbus", ConfigData: v1beta1.ConfigData{"offset": int64(1), "limit": int64(1)}}},
			{Name: "r", Type: "STRING", AccessMode: "ReadOnly"},
		},
	}}
}

func TestCheckDevice(t *testing.T) {
	m := exampleModel()
	device := func(properties ...v1beta1.Property) *v1beta1.Device {
		return &v1beta1.Device{Spec: v1beta1.DeviceSpec{DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, Properties: properties}}
	}
	value := func(text string) *v1beta1.Value { return &v1beta1.Value{Value: text} }
	for name, tc := range map[string]struct {
		d    *v1beta1.Device
		m    *v1beta1.DeviceModel
		want string
	}{
		"good":                {device(v1beta1.Property{Name: "a", Desired: value("5")}, v1beta1.Property{Name: "r"}), m, "[]"},
		"empty of a sensor":   {device(v1beta1.Property{Name: "r", Desired: value("")}), m, "[]"},
		"value of a sensor":   {device(v1beta1.Property{Name: "r", Desired: value("x")}), m, "[spec.properties[0].desired.value: the property is ReadOnly]"},
		"too large":           {device(v1beta1.Property{Name: "a", Desired: value("6")}), m, "[spec.properties[0].desired.value: 6 is above the maximum 5]"},
		"unknown property":    {device(v1beta1.Property{Name: "x"}), m, `[spec.properties[0].name: "x" is no property of model m]`},
		"twice":               {device(v1beta1.Property{Name: "a"}, v1beta1.Property{Name: "a"}), m, `[spec.properties[1].name: "a" is there twice]`},
		"unknown model":       {device(), nil, `[spec.deviceModelRef.name: there is no DeviceModel "m" in namespace "": create it first]`},
		"no model":            {&v1beta1.Device{}, m, "[spec.deviceModelRef.name: missing: name the DeviceModel of this device]"},
		"cycle below nothing": {device(v1beta1.Property{Name: "a", CollectCycle: -1}), m, "[spec.properties[0].collectCycle: -1 is negative: cycles are in milliseconds]"},
	} {
		if got := fmt.Sprint(CheckDevice(tc.d, tc.m)); got != tc.want {
			t.Errorf("%s: %s\nwant %s", name, got, tc.want)
		}
	}
	trap := device(v1beta1.Property{Name: "a", ReportCycle: 10_000_000_000, CollectCycle: 999_999_999})
	if got := Warnings(trap); len(got) != 1 || !strings.Contains(got[0], "did you mean nanoseconds, that is 10000") {
		t.Errorf("%q", got)
	}
}

func TestCheckModel(t *testing.T) {
	m := &v1beta1.DeviceModel{Spec: v1beta1.DeviceModelSpec{Properties: []v1beta1.ModelProperty{
		{Name: "a", Type: "INT", Minimum: "5", Maximum: "1"}, {Name: "a", Type: "WORD"}, {Name: "x/#", Maximum: "many", AccessMode: "Write"},
	}}}
	var fields []string
	for _, p := range CheckModel(m) {
		fields = append(fields, p.Field)
	}
	if got := strings.Join(fields, " "); got != "spec.properties[0].minimum spec.properties[1].name spec.properties[1].type spec.properties[2].name "+
		"spec.properties[2].accessMode spec.properties[2].maximum" {
		t.Error(got)
	}
}

func TestEffective(t *testing.T) {
	d := &v1beta1.Device{Spec: v1beta1.DeviceSpec{
		Protocol:   v1beta1.ProtocolConfig{ConfigData: v1beta1.ConfigData{"ip": "10.0.0.2"}},
		Properties: []v1beta1.Property{{Name: "a", Visitors: &v1beta1.Visitor{ConfigData: v1beta1.ConfigData{"offset": int64(7)}}}, {Name: "r"}},
	}}
	got := Effective(d, exampleModel())
	if text := fmt.Sprint(got.Spec.Protocol, got.Spec.Properties[0].Visitors); text != "{modbus map[ip:10.0.0.2 port:502]} &{modbus map[limit:1 offset:7]}" {
		t.Error(text)
	}
	if len(d.Spec.Properties[0].Visitors.ConfigData) != 1 || d.Spec.Protocol.ProtocolName != "" {
		t.Error("the device itself was changed")
	}
}
