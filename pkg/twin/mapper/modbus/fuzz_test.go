package modbus

import (
	"math"
	"strconv"
	"testing"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// FuzzRegisters expects that whatever a device holds is read as text or refused, and that what was written is read again.
func FuzzRegisters(f *testing.F) {
	f.Add("HoldingRegister", int64(1), int64(2), "uint32", "INT", 1.0, true, false, "4000000000", []byte{1, 2, 3, 4})
	f.Add("InputRegister", int64(0), int64(1), "", "DOUBLE", 0.1, false, true, "12.3", []byte{0xff, 0xfe})
	f.Add("HoldingRegister", int64(9), int64(4), "", "STRING", 0.0, true, true, "pump 1", []byte("pump\x00\xff  "))
	f.Add("CoilRegister", int64(65535), int64(1), "", "BOOLEAN", 1.0, false, false, "true", []byte{1})
	f.Fuzz(func(t *testing.T, register string, offset, limit int64, format, kind string, scale float64, swap, reverse bool, text string, data []byte) {
		p := property("p", kind, v1beta1.ConfigData{
			"register": register, "offset": offset, "limit": limit, "dataType": format, "scale": scale, "isSwap": swap, "isRegisterSwap": reverse,
		})
		at, err := placeOf(p)
		if err != nil {
			return
		}
		if at.coil {
			if len(data) > 0 {
				_, _ = at.decode(p, data)
			}
			return
		}
		if size := 2 * int(at.count); len(data) >= size {
			_, _ = at.decode(p, data[:size])
		}
		registers, err := at.encode(text)
		if err != nil {
			return
		}
		if len(registers) != 2*int(at.count) {
			t.Fatalf("%d bytes for %d registers", len(registers), at.count)
		}
		back, err := at.decode(p, registers)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		want, errWant := strconv.ParseInt(text, 10, 64)
		got, errGot := strconv.ParseInt(back, 10, 64)
		if at.scale == 1 && at.format != "text" && at.format != "hex" && errWant == nil && errGot == nil && got != want && math.Abs(float64(want)) < 1<<24 {
			t.Errorf("%s was written, %s is read (%+v)", text, back, at)
		}
	})
}
