package mqtt

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// heap is what is in use after a collection, stacks included, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// mute connects and says nothing, or what no client would say.
func (s *site) mute(i int) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", s.address, time.Second)
	if err == nil && i%4 == 0 {
		_, err = fmt.Fprint(c, "\x10\xff\xff\xff\x7f") // a first packet of 256 MiB
	}
	return c, err
}

// TestTenThousandConnections tries to keep clients out, and to fill the memory of the node.
func TestTenThousandConnections(t *testing.T) {
	s := newSite(t)
	before := s.join("before")
	before.subscribe("$hw/events/device/d1/#")
	atFirst := heap()
	var mu sync.Mutex
	var held []net.Conn
	refused, most := 0, int64(0)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 2500 {
				c, err := s.mute(i)
				mu.Lock()
				if err != nil {
					refused++
				}
				if c != nil {
					held = append(held, c)
				}
				if len(held) > 2000 { // the test itself may have so many files only
					_ = held[0].Close()
					held = held[1:]
				}
				mu.Unlock()
				if worker == 0 && i%500 == 499 {
					now := heap()
					mu.Lock()
					most = max(most, now)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	during := s.join("during") // a client gets in beside those who say nothing
	for _, b := range []*bus{before, during} {
		b.subscribe("$hw/events/device/d1/#")
		b.say("$hw/events/device/d1/twin/get", "")
		b.hear("$hw/events/device/d1/twin/get/result", "speed")
	}
	t.Logf("10000 connections, %d of them ended at once: the memory grew by %.1f MiB", refused, float64(most-atFirst)/(1<<20))
	if most-atFirst > 64<<20 {
		t.Errorf("the memory grew by %d bytes", most-atFirst)
	}
	for _, c := range held {
		_ = c.Close()
	}
}

// TestClientThatDoesNotRead subscribes to everything and takes nothing.
func TestClientThatDoesNotRead(t *testing.T) {
	s := newSiteWith(t, Config{Limits: Limits{Queue: 1 << 20}})
	sender, reader := s.join("sender"), s.join("reader")
	password, err := s.file.Add("slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	login := "\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04slow\x00\x04slow\x00" + string(rune(len(password))) + password
	if _, err := fmt.Fprintf(c, "\x10%c%s\x82\x0a\x00\x01\x00\x05crowd\x00", len(login), login); err != nil {
		t.Fatal(err)
	}
	answers := make([]byte, 9)
	for n := 0; n < len(answers); {
		more, err := c.Read(answers[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	if !reader.subscribe("crowd") {
		t.Fatal("subscription was refused")
	}
	atFirst := heap()
	payload := strings.Repeat("x", 64<<10)
	for range 400 { // 25 MiB
		sender.say("crowd", payload)
		reader.hear("crowd")
	}
	grown := heap() - atFirst
	t.Logf("the memory grew by %.1f MiB", float64(grown)/(1<<20))
	if grown > 16<<20 {
		t.Errorf("the memory grew by %d bytes", grown)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, 1<<20)
	for got := 0; ; {
		n, err := c.Read(rest)
		got += n
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Fatal("a client that reads nothing is still connected")
		}
		if err != nil {
			t.Logf("%d bytes had been on their way", got)
			return
		}
	}
}

func TestFirstPacket(t *testing.T) {
	for head, want := range map[string]bool{
		"": true, "\x10": true, "\x10\x20rest": true, "\x10\x80\x01": true, "\x10\x80\x80\x01": true, "\x10\x81\x80\x01": false, "\x10\xff\xff\xff\x7f": false,
		"\x30\x05": false, "GET / HTTP/1.1": false, "\x10\x80\x80\x80\x80\x01": false,
	} {
		whole, parts := firstPacket{}, firstPacket{}
		fine := true
		for i := range len(head) {
			fine = fine && parts.fine([]byte{head[i]})
		}
		if got := whole.fine([]byte(head)); got != want || fine != want {
			t.Errorf("%q: %v as a whole, %v in parts", head, got, fine)
		}
	}
}

// FuzzFirstPacket expects that the parts of a connection's beginning are judged like the whole.
func FuzzFirstPacket(f *testing.F) {
	f.Add([]byte("\x10\x80\x01"), 1)
	f.Add([]byte("\x10\xff\xff\x03\x00"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if len(data) == 0 {
			return
		}
		cut = int(uint(cut) % uint(len(data)))
		whole, parts := firstPacket{}, firstPacket{}
		fine := whole.fine(data)
		if got := parts.fine(data[:cut]) && parts.fine(data[cut:]); got != fine {
			t.Errorf("%v in parts, %v as a whole", got, fine)
		}
		if fine && whole.length > maxConnect {
			t.Errorf("a packet of %d bytes was taken", whole.length)
		}
	})
}

func TestQueues(t *testing.T) {
	q := newQueues(10*each, 25*each)
	one, two, three := &mochi.Client{}, &mochi.Client{}, &mochi.Client{}
	for range 9 {
		if q.put(one, 0) != nil || q.put(two, 0) != nil {
			t.Fatal("too soon")
		}
	}
	if got := q.put(three, 6*each); got != nil {
		t.Error("too soon for all")
	}
	if got := q.hold(three, 1, 0); got == nil || got == three {
		t.Errorf("%p has to go, not one of the two with most", got)
	}
	if got := q.put(one, each); got != one {
		t.Error("too much for one is not seen")
	}
	q.gone(one)
	q.took(two, 0)
	q.gone(two)
	q.gone(three)
	q.sure(three, 1)
	q.sure(three, 2)
	if q.total != 0 || len(q.waiting) != 0 {
		t.Errorf("%d bytes of %d clients remain", q.total, len(q.waiting))
	}
}
