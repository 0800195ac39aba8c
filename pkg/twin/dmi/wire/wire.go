// Package wire turns devices into messages of the device mapper interface and back. Values of configuration travel in five wrappers only,
// because drivers of the family read no others. Rooms of twin import it.
package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// Model returns the message of a model.
func Model(m *v1beta1.DeviceModel) *dmi.DeviceModel {
	out := &dmi.DeviceModel{Name: m.Name, Namespace: m.Namespace, Spec: &dmi.DeviceModelSpec{}}
	for _, p := range m.Spec.Properties {
		out.Spec.Properties = append(out.Spec.Properties, &dmi.ModelProperty{
			Name: p.Name, Description: p.Description, Type: p.Type, AccessMode: p.AccessMode, Minimum: p.Minimum, Maximum: p.Maximum, Unit: p.Unit,
		})
	}
	return out
}

// Device returns the message of a device and what is known of its twins.
func Device(d *v1beta1.Device, status v1beta1.Status) (*dmi.Device, error) {
	protocol, err := pack(d.Spec.Protocol.ConfigData)
	if err != nil {
		return nil, fmt.Errorf("spec.protocol.configData: %w", err)
	}
	spec := &dmi.DeviceSpec{Protocol: &dmi.ProtocolConfig{ProtocolName: d.Spec.Protocol.ProtocolName, ConfigData: protocol}}
	if r := d.Spec.DeviceModelRef; r != nil {
		spec.DeviceModelReference = r.Name
	}
	for _, p := range d.Spec.Properties {
		m, err := property(p)
		if err != nil {
			return nil, fmt.Errorf("property %s: %w", p.Name, err)
		}
		spec.Properties = append(spec.Properties, m)
	}
	for _, m := range d.Spec.Methods {
		spec.Methods = append(spec.Methods, &dmi.DeviceMethod{Name: m.Name, Description: m.Description, PropertyNames: m.PropertyNames})
	}
	out := &dmi.Device{Name: d.Name, Namespace: d.Namespace, Spec: spec, Status: &dmi.DeviceStatus{}}
	for _, t := range status.Twins {
		out.Status.Twins = append(out.Status.Twins, &dmi.Twin{
			PropertyName: t.PropertyName, Reported: value(t.Reported), ObservedDesired: value(t.ObservedDesired),
		})
	}
	if s := d.Spec.StateReport; s != nil {
		out.Status.ReportToCloud, out.Status.ReportCycle = s.ReportToCloud, s.ReportCycle
	}
	return out, nil
}

func property(p v1beta1.Property) (*dmi.DeviceProperty, error) {
	out := &dmi.DeviceProperty{
		Name: p.Name, Desired: value(p.Desired), ReportCycle: p.ReportCycle, CollectCycle: p.CollectCycle, ReportToCloud: p.ReportToCloud,
		Visitors: &dmi.VisitorConfig{}, PushMethod: push(p.PushMethod),
	}
	if p.Visitors != nil {
		config, err := pack(p.Visitors.ConfigData)
		if err != nil {
			return nil, fmt.Errorf("visitors.configData: %w", err)
		}
		out.Visitors = &dmi.VisitorConfig{ProtocolName: p.Visitors.ProtocolName, ConfigData: config}
	}
	return out, nil
}

// value of nil is an empty value: drivers of the family do not expect none.
func value(v *v1beta1.Value) *dmi.TwinProperty {
	if v == nil {
		return &dmi.TwinProperty{}
	}
	return &dmi.TwinProperty{Value: v.Value, Metadata: v.Metadata}
}

// pack wraps values. What none of the five wrappers holds travels as text: lists and maps as JSON, whole numbers that a driver's
// 64-bit wrapper does not hold as digits.
func pack(config v1beta1.ConfigData) (*dmi.CustomizedValue, error) {
	out := &dmi.CustomizedValue{Data: map[string]*anypb.Any{}}
	for name, v := range config {
		m, err := wrap(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		packed, err := anypb.New(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Data[name] = packed
	}
	return out, nil
}

func wrap(v any) (proto.Message, error) {
	switch v := v.(type) {
	case string:
		return wrapperspb.String(v), nil
	case bool:
		return wrapperspb.Bool(v), nil
	case int64:
		return wrapperspb.Int64(v), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return wrapperspb.Int64(int64(v)), nil
		}
		return wrapperspb.Float(float32(v)), nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return wrapperspb.String(string(text)), nil
}

// unpack reads what pack wrote, and what others write.
func unpack(c *dmi.CustomizedValue) (v1beta1.ConfigData, error) {
	out := v1beta1.ConfigData{}
	for name, packed := range c.GetData() {
		m, err := packed.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("configData %s: %w", name, err)
		}
		switch m := m.(type) {
		case *wrapperspb.StringValue:
			out[name] = m.Value
		case *wrapperspb.BoolValue:
			out[name] = m.Value
		case *wrapperspb.Int64Value:
			out[name] = m.Value
		case *wrapperspb.Int32Value:
			out[name] = int64(m.Value)
		case *wrapperspb.FloatValue:
			out[name] = decimal(m.Value)
		case *wrapperspb.DoubleValue:
			out[name] = m.Value
		default:
			return nil, fmt.Errorf("configData %s: a %T is not understood", name, m)
		}
	}
	return out, nil
}

// decimal is the number that somebody wrote: 0.1 and not 0.10000000149, which is what 32 bits make of it.
func decimal(f float32) float64 {
	n, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	if err != nil {
		return float64(f)
	}
	return n
}
