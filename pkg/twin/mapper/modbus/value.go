package modbus

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
)

// place says where a property is in the device and how its bits are to be read.
type place struct {
	read     byte // function code
	writable bool
	coil     bool
	address  uint16
	count    uint16 // registers
	format   string // int16, uint16, int32, …, float64, text, hex, bool
	scale    float64
	swap     bool // the bytes of each register
	reverse  bool // the registers
}

// placeOf reads a visitor.
func placeOf(p driver.Property) (place, error) {
	var at place
	switch kind := driver.Text(p.Visitor, "register"); kind {
	case "CoilRegister":
		at.read, at.coil, at.writable = readCoils, true, true
	case "DiscreteInputRegister":
		at.read, at.coil = readDiscretes, true
	case "HoldingRegister":
		at.read, at.writable = readHolding, true
	case "InputRegister":
		at.read = readInput
	default:
		return at, fmt.Errorf("register: %q is none of CoilRegister, DiscreteInputRegister, HoldingRegister, InputRegister", kind)
	}
	offset, ok := driver.Whole(p.Visitor, "offset")
	if !ok || offset < 0 || offset > math.MaxUint16 {
		return at, fmt.Errorf("offset: want a number from 0 to 65535, have %v", p.Visitor["offset"])
	}
	limit, ok := driver.Whole(p.Visitor, "limit")
	if !ok {
		limit = 1
	}
	if limit < 1 || limit > maxRegisters || at.coil && limit != 1 || offset+limit > math.MaxUint16+1 {
		return at, fmt.Errorf("limit: want 1 for coils and 1 to %d for registers, have %d", maxRegisters, limit)
	}
	at.address, at.count = uint16(offset), uint16(limit)
	at.scale = 1
	if s, ok := driver.Number(p.Visitor, "scale"); ok && s != 0 {
		at.scale = s
	}
	at.swap, at.reverse = driver.Flag(p.Visitor, "isSwap", false), driver.Flag(p.Visitor, "isRegisterSwap", false)
	return at, at.setFormat(p)
}

// sizes says how many registers a format takes.
func sizes() map[string]uint16 {
	return map[string]uint16{"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "int64": 4, "uint64": 4, "float32": 2, "float64": 4}
}

func (at *place) setFormat(p driver.Property) error {
	at.format = strings.ToLower(driver.Text(p.Visitor, "dataType"))
	if size, known := sizes()[at.format]; known && !at.coil {
		if size != at.count {
			return fmt.Errorf("limit: a value of dataType %s has %d registers, not %d", at.format, size, at.count)
		}
		return nil
	}
	kind := strings.ToUpper(p.Model.Type)
	byCount := map[uint16]string{1: "int16", 2: "int32", 4: "int64"}
	switch {
	case at.coil:
		at.format = "bool"
	case kind == v1beta1.TypeInt && byCount[at.count] != "", kind == v1beta1.TypeBoolean && at.count == 1:
		at.format = byCount[at.count]
	case (kind == v1beta1.TypeFloat || kind == v1beta1.TypeDouble) && byCount[at.count] != "":
		at.format = map[uint16]string{1: "int16", 2: "float32", 4: "float64"}[at.count]
	case kind == v1beta1.TypeString:
		at.format = "text"
	case kind == v1beta1.TypeBytes:
		at.format = "hex"
	default:
		return fmt.Errorf("limit: a value of type %s has 1, 2 or 4 registers, not %d", p.Model.Type, at.count)
	}
	return nil
}

// arrange turns registers as they are on the line into big endian, and back.
func (at place) arrange(registers []byte) []byte {
	out := slices.Clone(registers)
	if at.reverse {
		for i := 0; i < len(out)/2; i += 2 {
			j := len(out) - 2 - i
			out[i], out[i+1], out[j], out[j+1] = out[j], out[j+1], out[i], out[i+1]
		}
	}
	if at.swap {
		for i := 0; i+1 < len(out); i += 2 {
			out[i], out[i+1] = out[i+1], out[i]
		}
	}
	return out
}

// decode turns what was read into text.
func (at place) decode(p driver.Property, data []byte) (string, error) {
	if at.coil {
		on := data[0]&1 != 0
		if strings.EqualFold(p.Model.Type, v1beta1.TypeInt) {
			return map[bool]string{true: "1", false: "0"}[on], nil
		}
		return strconv.FormatBool(on), nil
	}
	b := at.arrange(data)
	var whole int64
	switch at.format {
	case "int16":
		whole = int64(int16(binary.BigEndian.Uint16(b)))
	case "uint16":
		whole = int64(binary.BigEndian.Uint16(b))
	case "int32":
		whole = int64(int32(binary.BigEndian.Uint32(b)))
	case "uint32":
		whole = int64(binary.BigEndian.Uint32(b))
	case "int64":
		whole = int64(binary.BigEndian.Uint64(b))
	case "uint64":
		if n := binary.BigEndian.Uint64(b); n > math.MaxInt64 {
			return strconv.FormatUint(n, 10), nil
		}
		whole = int64(binary.BigEndian.Uint64(b))
	case "float32":
		return at.number(float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 32)
	case "float64":
		return at.number(math.Float64frombits(binary.BigEndian.Uint64(b)), 64)
	case "text":
		return strings.ToValidUTF8(strings.TrimRight(string(b), "\x00 "), "?"), nil
	default:
		return hex.EncodeToString(b), nil
	}
	if strings.EqualFold(p.Model.Type, v1beta1.TypeBoolean) {
		return strconv.FormatBool(whole != 0), nil
	}
	if at.scale == 1 {
		return strconv.FormatInt(whole, 10), nil
	}
	f := float64(whole) * at.scale
	if strings.EqualFold(p.Model.Type, v1beta1.TypeInt) {
		return strconv.FormatInt(int64(math.Round(f)), 10), nil
	}
	return strconv.FormatFloat(math.Round(f*1e9)/1e9, 'f', -1, 64), nil
}

func (at place) number(f float64, bits int) (string, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "", fmt.Errorf("the registers hold %v, which is no number", f)
	}
	if at.scale != 1 {
		f, bits = f*at.scale, 64
	}
	return strconv.FormatFloat(f, 'f', -1, bits), nil
}

// encode turns text into registers, or says why it does not fit.
func (at place) encode(text string) ([]byte, error) {
	size := 2 * int(at.count)
	var b []byte
	switch at.format {
	case "text":
		b = append([]byte(text), make([]byte, max(0, size-len(text)))...)
	case "hex":
		raw, err := hex.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not hexadecimal", text)
		}
		b = raw
	case "float32", "float64":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		if f /= at.scale; at.format == "float64" {
			b = binary.BigEndian.AppendUint64(nil, math.Float64bits(f))
		} else if math.Abs(f) > math.MaxFloat32 {
			return nil, fmt.Errorf("%s does not fit into float32", text)
		} else {
			b = binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f)))
		}
	default:
		n, err := at.whole(text)
		if err != nil {
			return nil, err
		}
		b = binary.BigEndian.AppendUint64(nil, n)[8-size:]
	}
	if len(b) != size {
		return nil, fmt.Errorf("%d bytes do not fit into %d registers", len(b), at.count)
	}
	return at.arrange(b), nil
}

// whole is the number in the form of the registers.
func (at place) whole(text string) (uint64, error) {
	if b, err := strconv.ParseBool(text); err == nil && at.scale == 1 {
		return map[bool]uint64{true: 1, false: 0}[b], nil
	}
	bits := 16 * int(at.count)
	if at.scale == 1 {
		if strings.HasPrefix(at.format, "u") {
			n, err := strconv.ParseUint(text, 10, bits)
			if err != nil {
				return 0, fmt.Errorf("%q is no value of %s", text, at.format)
			}
			return n, nil
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return 0, fmt.Errorf("%q is no value of %s", text, at.format)
		}
		return uint64(n), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	f = math.Round(f / at.scale)
	low, high := -math.Ldexp(1, bits-1), math.Ldexp(1, bits-1)-1
	if strings.HasPrefix(at.format, "u") {
		low, high = 0, math.Ldexp(1, bits)-1
	}
	if f < low || f > high || math.IsNaN(f) {
		return 0, fmt.Errorf("%s does not fit into %s with scale %v", text, at.format, at.scale)
	}
	if f < 0 {
		return uint64(int64(f)), nil
	}
	return uint64(f), nil
}
