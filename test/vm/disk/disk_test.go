package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const testSize = 1 << 20

// newDisk makes a disk over a base of random bytes and returns those too.
func newDisk(t *testing.T, seed uint64) (*Disk, []byte) {
	t.Helper()
	dir := t.TempDir()
	base := make([]byte, testSize)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range base {
		base[i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(filepath.Join(dir, "base"), base, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Base: filepath.Join(dir, "base"), Overlay: filepath.Join(dir, "over"), Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, base
}

func content(t *testing.T, d *Disk) []byte {
	t.Helper()
	all := make([]byte, d.Size())
	if _, err := d.ReadAt(all, 0); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAgainstModel compares random writes, flushes and power cuts that lose all with two plain byte slices.
func TestAgainstModel(t *testing.T) {
	d, base := newDisk(t, 1)
	durable, seen := bytes.Clone(base), bytes.Clone(base)
	rng := rand.New(rand.NewPCG(2, 2))
	for step := range 3000 {
		p := bytes.Repeat([]byte{byte(step), byte(step >> 8)}, 1+rng.IntN(6000))
		off := rng.Int64N(testSize - int64(len(p)))
		switch n := rng.IntN(100); {
		case n < 80:
			if _, err := d.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			copy(seen[off:], p)
		case n < 90:
			if err := d.WriteThrough(p, off); err != nil {
				t.Fatal(err)
			}
			copy(seen[off:], p)
			copy(durable[off:], p)
		case n < 96:
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
			copy(durable, seen)
		default:
			if _, err := d.PowerCut(LoseAll); err != nil {
				t.Fatal(err)
			}
			copy(seen, durable)
		}
		if got := content(t, d); !bytes.Equal(got, seen) {
			t.Fatalf("step %d: the disk differs from the model", step)
		}
	}
}

// TestLoseSome checks that every sector after a tearing power cut is one that was there or was written, that flushed writes stay, and
// that all three fates occur.
func TestLoseSome(t *testing.T) {
	var sum Report
	for seed := range uint64(50) {
		d, base := newDisk(t, seed)
		flushed := bytes.Repeat([]byte{0xaa}, 8192)
		if _, err := d.WriteAt(flushed, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := d.WriteAt(bytes.Repeat([]byte{byte(i)}, 4096), int64(8192+2048*i)); err != nil {
				t.Fatal(err)
			}
		}
		r, err := d.PowerCut(LoseSome)
		if err != nil {
			t.Fatal(err)
		}
		sum.KeptWrites, sum.LostWrites, sum.TornWrites = sum.KeptWrites+r.KeptWrites, sum.LostWrites+r.LostWrites, sum.TornWrites+r.TornWrites
		got := content(t, d)
		if !bytes.Equal(got[:8192], flushed) {
			t.Fatalf("seed %d: a flushed write changed", seed)
		}
		for s := 8192; s < testSize; s += sectorSize {
			sector := got[s : s+sectorSize]
			if !bytes.Equal(sector, base[s:s+sectorSize]) && !bytes.Equal(sector, bytes.Repeat(sector[:1], sectorSize)) {
				t.Fatalf("seed %d: sector at %d was never written so", seed, s)
			}
		}
	}
	if sum.KeptWrites == 0 || sum.LostWrites == 0 || sum.TornWrites == 0 {
		t.Fatalf("one fate never occurred: %+v", sum)
	}
}

// TestNBD lets a real client, qemu-io, write, flush and read over NBD.
func TestNBD(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("qemu-io is not installed: scripts/install-test-deps.sh brings it")
	}
	d, base := newDisk(t, 3)
	socket := filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = d.Serve(conn)
		}
		served <- err
	}()
	out, err := exec.Command("qemu-io", "-f", "raw", "-t", "writeback", "nbd+unix:///root?socket="+socket,
		"-c", "write -P 17 4096 8192", "-c", "flush", "-c", "write -f -P 18 65536 512", "-c", "read -P 17 4096 8192", "-c", "write -P 19 200000 1024").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("failed")) {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); s.FUAs != 1 || s.Flushes == 0 {
		t.Fatalf("want one FUA write and a flush: %+v", s)
	}
	got := content(t, d)
	copy(base[4096:], bytes.Repeat([]byte{17}, 8192))
	copy(base[65536:], bytes.Repeat([]byte{18}, 512))
	copy(base[200000:], bytes.Repeat([]byte{19}, 1024))
	if !bytes.Equal(got, base) {
		t.Fatal("the disk differs from what the client wrote")
	}
}

// TestHold lets a power cut fall between a write and its flush, although the client never stops flushing.
func TestHold(t *testing.T) {
	d, base := newDisk(t, 5)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := d.WriteAt(bytes.Repeat([]byte{1}, 512), 0); err != nil {
				ended <- err
				return
			}
			if err := d.Flush(); err != nil {
				ended <- err
				return
			}
			copy(base, bytes.Repeat([]byte{1}, 512)) // acknowledged
		}
	}()
	if !d.Hold(10 * time.Second) {
		t.Fatal("the disk was never dirty")
	}
	d.Off()
	if err := <-ended; !errors.Is(err, errOff) {
		t.Fatalf("want %v, got %v", errOff, err)
	}
	r, err := d.PowerCut(LoseAll)
	if err != nil || r.Unflushed == 0 {
		t.Fatalf("nothing was unflushed: %+v, %v", r, err)
	}
	if !bytes.Equal(content(t, d), base) {
		t.Error("an acknowledged write is lost")
	}
	if d.Hold(time.Millisecond) {
		t.Error("an idle disk became dirty")
	}
	d.Off()
}

// TestBounds refuses requests outside of the disk.
func TestBounds(t *testing.T) {
	d, _ := newDisk(t, 4)
	if _, err := d.WriteAt(make([]byte, 512), testSize-511); err == nil {
		t.Error("a write over the end succeeded")
	}
	if _, err := d.ReadAt(make([]byte, 512), -1); err == nil {
		t.Error("a read before the start succeeded")
	}
}
