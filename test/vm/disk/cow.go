package disk

import (
	"errors"
	"fmt"
	"os"
)

// blockSize is the unit of copy on write.
const blockSize = 4096

// cow is a raw image that is never changed under an overlay file that takes the writes. Which blocks are in the overlay is
// known in memory only: the overlay lives as long as its test.
type cow struct {
	base, over *os.File
	size       int64
	inOver     []bool
}

func newCOW(base, over string) (*cow, error) {
	b, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	st, err := b.Stat()
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if st.Size()%blockSize != 0 {
		return nil, errors.Join(fmt.Errorf("%s: length %d is not a multiple of %d", base, st.Size(), blockSize), b.Close())
	}
	o, err := os.OpenFile(over, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &cow{base: b, over: o, size: st.Size(), inOver: make([]bool, st.Size()/blockSize)}, nil
}

func (c *cow) close() error { return errors.Join(c.base.Close(), c.over.Close()) }

// check refuses what lies outside the disk.
func (c *cow) check(off int64, n int) error {
	if off < 0 || off+int64(n) > c.size {
		return fmt.Errorf("%d bytes at %d: outside of the disk of %d bytes", n, off, c.size)
	}
	return nil
}

// readAt reads runs of blocks from the file that has them.
func (c *cow) readAt(p []byte, off int64) error {
	for len(p) > 0 {
		block := off / blockSize
		end := block + 1
		for end*blockSize < off+int64(len(p)) && c.inOver[end] == c.inOver[block] {
			end++
		}
		n := min(int64(len(p)), end*blockSize-off)
		f := c.base
		if c.inOver[block] {
			f = c.over
		}
		if _, err := f.ReadAt(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeAt writes to the overlay, first copying blocks there that are changed only in part.
func (c *cow) writeAt(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	first, last := off/blockSize, (off+int64(len(p))-1)/blockSize
	for _, edge := range []int64{first, last} {
		if c.inOver[edge] || off <= edge*blockSize && off+int64(len(p)) >= (edge+1)*blockSize {
			continue
		}
		var block [blockSize]byte
		if _, err := c.base.ReadAt(block[:], edge*blockSize); err != nil {
			return err
		}
		if _, err := c.over.WriteAt(block[:], edge*blockSize); err != nil {
			return err
		}
		c.inOver[edge] = true
	}
	if _, err := c.over.WriteAt(p, off); err != nil {
		return err
	}
	for b := first; b <= last; b++ {
		c.inOver[b] = true
	}
	return nil
}
