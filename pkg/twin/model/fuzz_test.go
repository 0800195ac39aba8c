package model

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// FuzzObjects expects a verdict on whatever somebody writes as a device and its model, and the same one for what was read and written again.
func FuzzObjects(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"d"},"spec":{"deviceModelRef":{"name":"m"},"properties":[{"name":"a","desired":{"value":"5"},"collectCycle":1000000000}]}}`),
		[]byte(`{"metadata":{"name":"m"},"spec":{"properties":[{"name":"a","type":"INT","accessMode":"ReadWrite","minimum":"0","maximum":"9"}]}}`))
	f.Add([]byte(`{"spec":{"protocol":{"configData":{"a":{"b":[1,2.5,null]}}}}}`), []byte(`{"spec":{"properties":[{"name":"","type":"x","minimum":"b"}]}}`))
	f.Fuzz(func(t *testing.T, device, of []byte) {
		d, m := &v1beta1.Device{}, &v1beta1.DeviceModel{}
		if json.Unmarshal(device, d) != nil || json.Unmarshal(of, m) != nil {
			return
		}
		said := len(CheckDevice(d, m)) + len(CheckDevice(d, nil)) + len(CheckModel(m)) + len(Warnings(d))
		_ = Effective(d, m)
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again := &v1beta1.Device{}
		if err := json.Unmarshal(data, again); err != nil {
			t.Fatal(err)
		}
		if got := len(CheckDevice(again, m)) + len(CheckDevice(again, nil)) + len(CheckModel(m)) + len(Warnings(again)); got != said {
			t.Errorf("%d problems, and %d when written and read", said, got)
		}
	})
}

// FuzzValue expects that what is taken is of the type and within the bounds.
func FuzzValue(f *testing.F) {
	f.Add("INT", "-5", "9", "9")
	f.Add("FLOAT", "1e300", "", "inf")
	f.Add("BOOLEAN", "", "", "TRUE")
	f.Fuzz(func(t *testing.T, kind, low, high, text string) {
		p := v1beta1.ModelProperty{Type: kind, Minimum: low, Maximum: high, AccessMode: "ReadWrite"}
		err := Value(p, text)
		if outside := (*RangeError)(nil); err != nil {
			_ = errors.As(err, &outside)
			return
		}
		if len(text) > MaxValue {
			t.Errorf("%d bytes", len(text))
		}
		switch strings.ToUpper(kind) {
		case v1beta1.TypeInt, v1beta1.TypeFloat, v1beta1.TypeDouble:
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
				t.Errorf("%q is no number: %v", text, err)
			}
			if bound, err := strconv.ParseFloat(low, 64); err == nil && n < bound {
				t.Errorf("%q is below %q", text, low)
			}
			if bound, err := strconv.ParseFloat(high, 64); err == nil && n > bound {
				t.Errorf("%q is above %q", text, high)
			}
		}
	})
}
