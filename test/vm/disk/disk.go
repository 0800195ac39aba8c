// Package disk is the disk of a virtual machine with an honest volatile write cache: what the guest wrote but did not flush is
// kept in memory, and a power cut loses all or a random, torn part of it. It serves the disk to qemu over NBD. Only test/vm
// and tests of storage code may import it.
package disk

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
)

// Loss says what a power cut does to writes that were not flushed.
type Loss int

const (
	// LoseAll drops every write since the last flush.
	LoseAll Loss = iota
	// LoseSome keeps, drops or tears each of them at random, sector by sector: what a drive that reorders may leave.
	LoseSome
)

const (
	sectorSize = 512
	// cacheBytes bounds the cache; beyond it the oldest write becomes durable, as in a drive.
	cacheBytes = 256 << 20
)

// Config describes a disk.
type Config struct {
	Base    string // raw image, only read; its length is the disk's length
	Overlay string // file made here that takes the changes
	Seed    uint64 // of the random choices of LoseSome
}

// Disk is one disk. All methods may be called at the same time.
type Disk struct {
	mu      sync.Mutex
	durable *cow
	cache   []cached // in the order of arrival
	bytes   int64    // of cache
	rng     *rand.Rand
	stats   Stats
	hold    *hold // nil: none
	off     bool
}

// cached is one write that is not durable yet.
type cached struct {
	off  int64
	data []byte
}

// Stats counts what the guest asked for since the disk was made.
type Stats struct {
	Reads, Writes, FUAs, Flushes uint64
	WrittenBytes                 uint64
}

// Report is what a power cut found and did.
type Report struct {
	Unflushed                          int   // writes in the cache
	UnflushedBytes                     int64 // their bytes
	KeptWrites, LostWrites, TornWrites int
}

// String is one line for a test log.
func (r Report) String() string {
	return fmt.Sprintf("%d unflushed writes (%d KiB): %d kept, %d lost, %d torn",
		r.Unflushed, r.UnflushedBytes>>10, r.KeptWrites, r.LostWrites, r.TornWrites)
}

// New makes the overlay and opens the base.
func New(c Config) (*Disk, error) {
	d, err := newCOW(c.Base, c.Overlay)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	return &Disk{durable: d, rng: rand.New(rand.NewPCG(c.Seed, c.Seed))}, nil
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.durable.size }

// Close closes the files; the overlay stays where it is.
func (d *Disk) Close() error { return d.durable.close() }

// Stats returns the counters.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// ReadAt reads what the guest would see: durable data under the cache.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.enter(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	d.stats.Reads++
	if err := d.durable.check(off, len(p)); err != nil {
		return 0, err
	}
	if err := d.durable.readAt(p, off); err != nil {
		return 0, err
	}
	for _, w := range d.cache {
		overlay(p, off, w.data, w.off)
	}
	return len(p), nil
}

// WriteAt puts a write into the cache.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.enter(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if err := d.durable.check(off, len(p)); err != nil {
		return 0, err
	}
	d.stats.Writes++
	d.stats.WrittenBytes += uint64(len(p))
	d.cache = append(d.cache, cached{off, append([]byte(nil), p...)})
	d.bytes += int64(len(p))
	d.touchHold()
	for d.bytes > cacheBytes {
		if err := d.destage(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// WriteThrough makes one write durable at once (NBD's FUA), leaving older writes elsewhere in the cache.
func (d *Disk) WriteThrough(p []byte, off int64) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.durable.check(off, len(p)); err != nil {
		return err
	}
	d.stats.FUAs++
	d.stats.WrittenBytes += uint64(len(p))
	for _, w := range d.cache { // an older write of the same place must not come back later
		overlay(w.data, w.off, p, off)
	}
	return d.durable.writeAt(p, off)
}

// Flush makes everything durable that was written before.
func (d *Disk) Flush() error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.stats.Flushes++
	for len(d.cache) > 0 {
		if err := d.destage(); err != nil {
			return err
		}
	}
	d.cache = nil
	return nil
}

// PowerCut empties the cache as a sudden loss of power does, and makes the disk ready for the next power-on. The machine must be off: nothing
// may write any more.
func (d *Disk) PowerCut(loss Loss) (Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := Report{Unflushed: len(d.cache), UnflushedBytes: d.bytes}
	for _, w := range d.cache {
		keep := make([]bool, (len(w.data)+sectorSize-1)/sectorSize)
		if loss == LoseSome {
			choose(d.rng, keep)
		}
		kept := 0
		for i, k := range keep {
			if !k {
				continue
			}
			kept++
			end := min((i+1)*sectorSize, len(w.data))
			if err := d.durable.writeAt(w.data[i*sectorSize:end], w.off+int64(i*sectorSize)); err != nil {
				return r, err
			}
		}
		switch kept {
		case 0:
			r.LostWrites++
		case len(keep):
			r.KeptWrites++
		default:
			r.TornWrites++
		}
	}
	d.cache, d.bytes = nil, 0
	d.hold, d.off = nil, false
	return r, nil
}

// choose decides for each sector of one write: a third is kept whole, a third lost, a third torn.
func choose(rng *rand.Rand, keep []bool) {
	switch rng.IntN(3) {
	case 0:
		for i := range keep {
			keep[i] = true
		}
	case 1:
		for i := range keep {
			keep[i] = rng.IntN(2) == 0
		}
	}
}

// destage makes the oldest cached write durable.
func (d *Disk) destage() error {
	w := d.cache[0]
	if err := d.durable.writeAt(w.data, w.off); err != nil {
		return err
	}
	d.cache = d.cache[1:]
	d.bytes -= int64(len(w.data))
	return nil
}

// overlay copies the part of src (at srcOff) that lies inside dst (at dstOff).
func overlay(dst []byte, dstOff int64, src []byte, srcOff int64) {
	from := max(dstOff, srcOff)
	to := min(dstOff+int64(len(dst)), srcOff+int64(len(src)))
	if from < to {
		copy(dst[from-dstOff:to-dstOff], src[from-srcOff:])
	}
}

// Export writes the durable content to a sparse raw file, for a look with file system tools.
func (d *Disk) Export(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(d.Size()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	zero, buf := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < d.durable.size; off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), d.durable.size-off)]
		if err := d.durable.readAt(p, off); err != nil {
			return err
		}
		if string(p) == string(zero[:len(p)]) {
			continue
		}
		if _, err := io.NewOffsetWriter(f, off).Write(p); err != nil {
			return err
		}
	}
	return nil
}
