// Package output keeps what several goroutines or another process print, for tests to read. Tests and benches may import it.
package output

import (
	"bytes"
	"sync"
)

// Buffer is a writer of which another goroutine may read what was written so far. The zero value is empty and ready.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer; it never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is everything that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
