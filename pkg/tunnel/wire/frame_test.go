package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// encode builds one WebSocket frame.
func encode(opcode byte, payload []byte, masked bool) []byte {
	b := []byte{0x80 | opcode, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	b[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func TestScannerFindsFramesHoweverTheyArrive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		stream := []byte("HTTP/1.1 101 Switching Protocols\r\nA: \r\r\n b\r\n\r\n")
		var want []string
		for range 20 {
			payload := bytes.Repeat([]byte{byte(r.IntN(256))}, []int{0, 1, 50, 96, 97, 125, 126, 5000, maxFrame}[r.IntN(9)])
			opcode := []byte{opBinary, opPing}[r.IntN(2)]
			stream = append(stream, encode(opcode, payload, r.IntN(2) == 0)...)
			want = append(want, fmt.Sprintf("%d %d %x", opcode, len(payload), payload[:min(len(payload), headSize)]))
		}
		s := scanner{preface: true}
		var got []string
		for len(stream) > 0 {
			n := min(len(stream), 1+r.IntN(1+r.IntN(3000)))
			if err := s.scan(stream[:n], func(f frame) error {
				got = append(got, fmt.Sprintf("%d %d %x", f.opcode, f.size, f.head))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			stream = stream[n:]
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || !s.boundary() {
			t.Fatalf("round %d: frames differ", round)
		}
	}
}

func TestScannerRefuses(t *testing.T) {
	huge := binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63)
	fragment := encode(opBinary, []byte("x"), true)
	fragment[0] &^= 0x80
	for name, b := range map[string][]byte{
		"too large":    encode(opBinary, make([]byte, maxFrame+1), true)[:20],
		"huge":         huge,
		"fragment":     fragment,
		"continuation": encode(opContinuation, nil, false),
	} {
		var s scanner
		if err := s.scan(b, func(frame) error { return nil }); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzScanner(f *testing.F) {
	f.Add(encode(opBinary, []byte("hello"), true))
	f.Add(encode(opBinary, make([]byte, 300), false))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var s scanner
		_ = s.scan(b, func(fr frame) error {
			_, err := parseMessage(fr, hasDeadline)
			return err
		})
	})
}

func TestLedgerBoundsWhatWaits(t *testing.T) {
	l := NewLedger()
	a := l.Open("s1")
	l.bind(5, "s1")
	for range 3 {
		if err := l.arrived(5, maxStreamBacklog); err != nil {
			t.Fatal(err)
		}
		a.Consumed(maxStreamBacklog)
	}
	if err := l.arrived(6, maxSessionBacklog+1); err != nil {
		t.Errorf("data for a closed stream, which is dropped: %v", err)
	}
	if err := l.arrived(5, maxStreamBacklog); err != nil {
		t.Fatal(err)
	}
	if err := l.arrived(5, 1); err == nil {
		t.Error("one byte more than the limit of a stream was taken")
	}
	a.Close()
	a.Close()
	a.Consumed(1)
	if l.total != 0 || l.Len() != 0 {
		t.Errorf("after the end %d bytes on %d streams", l.total, l.Len())
	}
	var err error
	for i := range int64(5) {
		l.bind(10+i, fmt.Sprint("t", i))
		err = l.arrived(10+i, maxStreamBacklog-1)
	}
	if err == nil {
		t.Error("more than the limit of a session was taken")
	}
}
