package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// Problem is what is wrong with one field.
type Problem struct {
	Field, Reason string
}

// String names the field and the reason.
func (p Problem) String() string { return p.Field + ": " + p.Reason }

// problems collects what is wrong.
type problems []Problem

func (ps *problems) add(field, format string, args ...any) {
	*ps = append(*ps, Problem{field, fmt.Sprintf(format, args...)})
}

// CheckModel returns what is wrong with a model.
func CheckModel(m *v1beta1.DeviceModel) []Problem {
	var ps problems
	seen := map[string]bool{}
	if len(m.Spec.Properties) > maxProperties {
		ps.add("spec.properties", "there are %d, more than %d", len(m.Spec.Properties), maxProperties)
		return ps
	}
	types := []string{v1beta1.TypeInt, v1beta1.TypeFloat, v1beta1.TypeDouble, v1beta1.TypeString, v1beta1.TypeBoolean, v1beta1.TypeBytes, v1beta1.TypeStream}
	for i, p := range m.Spec.Properties {
		at := fmt.Sprintf("spec.properties[%d]", i)
		if err := Name(p.Name); err != nil {
			ps.add(at+".name", "%v", err)
		}
		if seen[p.Name] {
			ps.add(at+".name", "%q is there twice", p.Name)
		}
		seen[p.Name] = true
		if p.Type != "" && !slices.Contains(types, strings.ToUpper(p.Type)) {
			ps.add(at+".type", "%q is none of %s", p.Type, strings.Join(types, ", "))
		}
		if p.AccessMode != "" && p.AccessMode != v1beta1.ReadOnly && p.AccessMode != v1beta1.ReadWrite {
			ps.add(at+".accessMode", "%q is neither ReadWrite nor ReadOnly", p.AccessMode)
		}
		ps.bounds(at, p)
	}
	return ps
}

func (ps *problems) bounds(at string, p v1beta1.ModelProperty) {
	var values [2]float64
	for i, b := range []struct{ name, text string }{{"minimum", p.Minimum}, {"maximum", p.Maximum}} {
		f, err := strconv.ParseFloat(b.text, 64)
		if b.text != "" && err != nil {
			ps.add(at+"."+b.name, "%q is not a number", b.text)
		}
		values[i] = f
	}
	if p.Minimum != "" && p.Maximum != "" && values[0] > values[1] {
		ps.add(at+".minimum", "%s is above the maximum %s", p.Minimum, p.Maximum)
	}
}

// CheckDevice returns what is wrong with a device. A nil model means that there is none of that name.
func CheckDevice(d *v1beta1.Device, m *v1beta1.DeviceModel) []Problem {
	var ps problems
	if d.Spec.DeviceModelRef == nil || d.Spec.DeviceModelRef.Name == "" {
		ps.add("spec.deviceModelRef.name", "missing: name the DeviceModel of this device")
		return ps
	}
	if m == nil {
		ps.add("spec.deviceModelRef.name", "there is no DeviceModel %q in namespace %q: create it first", d.Spec.DeviceModelRef.Name, d.Namespace)
		return ps
	}
	if len(d.Spec.Properties) > maxProperties {
		ps.add("spec.properties", "there are %d, more than %d", len(d.Spec.Properties), maxProperties)
		return ps
	}
	seen := map[string]bool{}
	for i, p := range d.Spec.Properties {
		at := fmt.Sprintf("spec.properties[%d]", i)
		if seen[p.Name] {
			ps.add(at+".name", "%q is there twice", p.Name)
		}
		seen[p.Name] = true
		ps.property(at, p, m)
	}
	for i, method := range d.Spec.Methods {
		for j, name := range method.PropertyNames {
			if p, ok := Property(m, name); !ok || p.AccessMode == v1beta1.ReadOnly {
				ps.add(fmt.Sprintf("spec.methods[%d].propertyNames[%d]", i, j), "%q is no property of model %s that can be set", name, m.Name)
			}
		}
	}
	if s := d.Spec.StateReport; s != nil {
		ps.cycle("spec.stateReport.reportCycle", s.ReportCycle)
	}
	return ps
}

func (ps *problems) property(at string, p v1beta1.Property, m *v1beta1.DeviceModel) {
	mp, ok := Property(m, p.Name)
	if !ok {
		ps.add(at+".name", "%q is no property of model %s", p.Name, m.Name)
		return
	}
	if p.Desired != nil {
		if err := Desired(mp, p.Desired.Value); err != nil {
			ps.add(at+".desired.value", "%v", err)
		}
	}
	ps.cycle(at+".collectCycle", p.CollectCycle)
	ps.cycle(at+".reportCycle", p.ReportCycle)
}

func (ps *problems) cycle(field string, ms int64) {
	if ms < 0 {
		ps.add(field, "%d is negative: cycles are in milliseconds", ms)
	}
}

// Warnings returns what is allowed and is probably a mistake: cycles are in milliseconds, and figures in nanoseconds are about.
func Warnings(d *v1beta1.Device) []string {
	var out []string
	for i, p := range d.Spec.Properties {
		for name, ms := range map[string]int64{"collectCycle": p.CollectCycle, "reportCycle": p.ReportCycle} {
			if ms >= nanosecondTrap {
				out = append(out, fmt.Sprintf("spec.properties[%d].%s: %d milliseconds are %d days: did you mean nanoseconds, that is %d?",
					i, name, ms, ms/86_400_000, ms/1_000_000))
			}
		}
	}
	slices.Sort(out)
	return out
}

// Effective returns the device with what its model says merged in: configuration key by key, the device wins.
func Effective(d *v1beta1.Device, m *v1beta1.DeviceModel) *v1beta1.Device {
	out := *d
	if m == nil {
		return &out
	}
	if out.Spec.Protocol.ProtocolName == "" {
		out.Spec.Protocol.ProtocolName = m.Spec.Protocol
	}
	out.Spec.Protocol.ConfigData = overlay(m.Spec.ProtocolConfigData, d.Spec.Protocol.ConfigData)
	out.Spec.Properties = slices.Clone(d.Spec.Properties)
	for i, p := range out.Spec.Properties {
		mp, _ := Property(m, p.Name)
		if mp.Visitors == nil {
			continue
		}
		v := v1beta1.Visitor{ProtocolName: mp.Visitors.ProtocolName, ConfigData: mp.Visitors.ConfigData}
		if p.Visitors != nil {
			v.ConfigData = overlay(v.ConfigData, p.Visitors.ConfigData)
			if p.Visitors.ProtocolName != "" {
				v.ProtocolName = p.Visitors.ProtocolName
			}
		}
		out.Spec.Properties[i].Visitors = &v
	}
	return &out
}

func overlay(under, over v1beta1.ConfigData) v1beta1.ConfigData {
	if len(under) == 0 {
		return over
	}
	out := make(v1beta1.ConfigData, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}
