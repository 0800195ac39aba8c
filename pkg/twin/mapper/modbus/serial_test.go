package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/test/plc"
)

// Faults of a serial device.
const (
	fine int32 = iota
	silent
	noisy  // one bit of each answer is wrong
	broken // half of each answer
	late   // the answer comes after the driver has given up
	chatty // bytes of a disturbance before the question is answered
)

// slave is a simulated device at the end of a serial line that has a file name, as an adapter in a machine has.
type slave struct {
	*plc.Device
	t      *testing.T
	path   string // a link, as udev makes it
	end    *os.File
	fault  atomic.Int32
	asked  atomic.Int32
	belate chan struct{}
}

// openpty returns the end of the device and the name of the driver's end.
func openpty(t *testing.T) (*os.File, string) {
	t.Helper()
	end, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("there are no pseudo terminals here: %v", err)
	}
	number := 0
	err = control(end, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return end, fmt.Sprintf("/dev/pts/%d", number)
}

func newSlave(t *testing.T) *slave {
	s := &slave{Device: &plc.Device{}, t: t, path: filepath.Join(t.TempDir(), "ttyUSB0"), belate: make(chan struct{}, 1)}
	s.plugIn()
	t.Cleanup(func() { _ = s.end.Close() })
	return s
}

// plugIn connects the device; its registers are empty.
func (s *slave) plugIn() {
	end, name := openpty(s.t)
	_ = os.Remove(s.path)
	if err := os.Symlink(name, s.path); err != nil {
		s.t.Fatal(err)
	}
	s.end = end
	powerOn(s.t, s.Device)
	go s.serveLine(end)
}

// unplug takes the adapter out of the machine.
func (s *slave) unplug() { _ = s.end.Close() }

// serveLine answers frames for unit 2 until the line is gone.
func (s *slave) serveLine(line io.ReadWriter) {
	var frame []byte
	part := make([]byte, 300)
	for {
		n, err := line.Read(part)
		if errors.Is(err, unix.EIO) { // nobody has the other end open
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return
		}
		frame = append(frame, part[:n]...)
		if size := requestSize(frame); size == 0 || len(frame) < size {
			continue
		}
		pdu, err := rtuPDU(frame, 2)
		frame = nil
		s.asked.Add(1)
		if err != nil {
			continue // a device does not answer what is not for it
		}
		if err := s.reply(line, rtuFrame(2, s.Do(pdu))); err != nil {
			return
		}
	}
}

func (s *slave) reply(line io.Writer, answer []byte) error {
	switch s.fault.Load() {
	case silent:
		return nil
	case noisy:
		answer[len(answer)-3] ^= 0x10
	case broken:
		answer = answer[:len(answer)/2]
	case late:
		<-s.belate
	case chatty:
		answer = append([]byte{0, 0xff}, answer...)
	}
	_, err := line.Write(answer)
	return err
}

// requestSize is the size of a whole request.
func requestSize(head []byte) int {
	switch {
	case len(head) < 7:
		return 0
	case head[1] == writeRegisters:
		return 7 + int(head[6]) + 2
	}
	return 8
}

func (s *slave) open(config v1beta1.ConfigData) (driver.Device, []driver.Property) {
	s.t.Helper()
	properties := []driver.Property{
		property("small", "INT", at("HoldingRegister", 0, 1)), property("float", "FLOAT", at("HoldingRegister", 2, 2)),
		property("coil", "BOOLEAN", at("CoilRegister", 3, 1)), property("name", "STRING", at("HoldingRegister", 10, 8)),
		property("far", "INT", at("HoldingRegister", 99, 2)),
	}
	d, err := NewOpener().Open(driver.Config{Protocol: config, Properties: properties})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = d.Close() })
	return d, properties
}

// within gives a call so much time.
func within(t *testing.T, limit time.Duration, do func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	err := do(ctx)
	if took := time.Since(begin); took > limit+20*time.Second {
		t.Errorf("it took %s", took)
	}
	return err
}

func (s *slave) readAndWrite(d driver.Device, properties []driver.Property) {
	s.t.Helper()
	for i, text := range []string{"-7", "21.5", "true", "a pump of seven"} {
		err := within(s.t, 30*time.Second, func(ctx context.Context) error {
			if err := d.Write(ctx, properties[i], text); err != nil {
				return err
			}
			got, err := d.Read(ctx, properties[i])
			if err == nil && got != text {
				err = fmt.Errorf("read %q", got)
			}
			return err
		})
		if err != nil {
			s.t.Errorf("%s: %v", properties[i].Name, err)
		}
	}
}

func serialConfig(path string) v1beta1.ConfigData {
	return v1beta1.ConfigData{"serialPort": path, "baudRate": int64(115200), "parity": "even", "slaveID": int64(2)}
}

func TestSerialLine(t *testing.T) {
	s := newSlave(t)
	d, properties := s.open(serialConfig(s.path))
	s.readAndWrite(d, properties)
	far := within(t, 30*time.Second, func(ctx context.Context) error { _, err := d.Read(ctx, properties[4]); return err })
	if refused := (*Exception)(nil); !errors.As(far, &refused) {
		t.Errorf("a register that is not there: %v", far)
	}
	for fault, want := range map[int32]string{silent: "timeout", noisy: "checksum is wrong", broken: "timeout", chatty: ""} {
		s.fault.Store(fault)
		err := within(t, 300*time.Millisecond, func(ctx context.Context) error { _, err := d.Read(ctx, properties[0]); return err })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("fault %d: %v", fault, err)
		}
		s.fault.Store(fine)
		s.readAndWrite(d, properties) // and the line is as good as before
	}
}

func TestLateAnswerOfASerialLine(t *testing.T) {
	s := newSlave(t)
	d, properties := s.open(serialConfig(s.path))
	s.readAndWrite(d, properties)
	s.fault.Store(late)
	if err := within(t, 200*time.Millisecond, func(ctx context.Context) error { _, err := d.Read(ctx, properties[0]); return err }); err == nil {
		t.Error("a device that does not answer was read")
	}
	s.fault.Store(fine)
	s.belate <- struct{}{}
	s.readAndWrite(d, properties)
}

func TestPowerCycleOfASerialLine(t *testing.T) {
	s := newSlave(t)
	d, properties := s.open(serialConfig(s.path))
	s.readAndWrite(d, properties)
	s.unplug()
	for range 2 {
		if err := within(t, time.Second, func(ctx context.Context) error { _, err := d.Read(ctx, properties[0]); return err }); err == nil {
			t.Error("a device that is not there was read")
		}
	}
	s.plugIn()
	err := within(t, 30*time.Second, func(ctx context.Context) error {
		got, err := d.Read(ctx, properties[0])
		if err == nil && got != "0" {
			err = fmt.Errorf("it is %s after a power cycle", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	s.readAndWrite(d, properties)
}

func TestSerialLineBehindAGateway(t *testing.T) {
	s := newSlave(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serveLine(c)
		}
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	d, properties := s.open(v1beta1.ConfigData{"ip": host, "port": port, "framing": "rtu", "slaveID": int64(2)})
	s.readAndWrite(d, properties)
	s.fault.Store(noisy)
	if err := within(t, time.Second, func(ctx context.Context) error { _, err := d.Read(ctx, properties[0]); return err }); err == nil {
		t.Error("a wrong checksum was taken")
	}
	s.fault.Store(fine)
	s.readAndWrite(d, properties)
}

func TestDevicesOfOneLineTakeTurns(t *testing.T) {
	s := newSlave(t)
	o := NewOpener()
	p := property("small", "INT", at("HoldingRegister", 0, 1))
	done := make(chan error, 4)
	for range cap(done) {
		d, err := o.Open(driver.Config{Protocol: serialConfig(s.path), Properties: []driver.Property{p}})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer func() { _ = d.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 25 {
				if _, err := d.Read(ctx, p); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := s.asked.Load(); got != 100 {
		t.Errorf("%d questions", got)
	}
	if len(o.lines) != 0 {
		t.Error("the line is still open")
	}
}

func TestBadSerialConfiguration(t *testing.T) {
	for want, change := range map[string]v1beta1.ConfigData{
		"slaveID: 0": {"slaveID": int64(0)}, "slaveID: 248": {"slaveID": int64(248)}, "baudRate": {"baudRate": int64(12345)}, "parity": {"parity": "mark"},
		"stopBits": {"stopBits": int64(3)}, "dataBits": {"dataBits": int64(9)}, "framing": {"serialPort": "", "ip": "127.0.0.1", "framing": "ascii"},
	} {
		c := serialConfig("/dev/ttyS0")
		for k, v := range change {
			c[k] = v
		}
		if _, err := NewOpener().Open(driver.Config{Protocol: c}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", change, err)
		}
	}
}
