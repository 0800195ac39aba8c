package wire

import (
	"fmt"
	"sync"
)

// How much may wait in memory for a reader that is slow. The multiplexer asks the sender to pause at 2 MiB; what is under way
// then still arrives.
const (
	maxStreamBacklog  = 16 << 20
	maxSessionBacklog = 64 << 20
)

// Ledger counts what waits to be read on each stream of a session, because the multiplexer itself keeps everything that arrives.
// It is safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex
	byTag    map[string]*Account
	byStream map[int64]*Account
	total    int64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{byTag: map[string]*Account{}, byStream: map[int64]*Account{}}
}

// Account is the ledger's page for one stream.
type Account struct {
	ledger  *Ledger // its mutex guards what follows
	tag     string
	stream  int64
	known   bool // stream is set
	closed  bool
	backlog int64
}

// Open returns the account of a tag, making it when needed.
func (l *Ledger) Open(tag string) *Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(tag)
}

func (l *Ledger) open(tag string) *Account {
	a := l.byTag[tag]
	if a == nil {
		a = &Account{ledger: l, tag: tag}
		l.byTag[tag] = a
	}
	return a
}

// Len is how many accounts are open.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byTag)
}

// Consumed says that n bytes were read.
func (a *Account) Consumed(n int) {
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	if !a.closed {
		a.backlog -= int64(n)
		a.ledger.total -= int64(n)
	}
}

// Close forgets the stream and what waited on it.
func (a *Account) Close() {
	l := a.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	delete(l.byTag, a.tag)
	if a.known {
		delete(l.byStream, a.stream)
	}
	l.total -= a.backlog
}

// bind is called when a connect for the tag passes by.
func (l *Ledger) bind(stream int64, tag string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(tag)
	a.stream, a.known = stream, true
	l.byStream[stream] = a
}

// arrived is called when n bytes for the stream pass by.
func (l *Ledger) arrived(stream int64, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byStream[stream]
	if a == nil {
		return nil // closed on this side: the multiplexer drops it
	}
	a.backlog += int64(n)
	l.total += int64(n)
	if a.backlog > maxStreamBacklog || l.total > maxSessionBacklog {
		return fmt.Errorf("the other end does not pause: %d bytes wait on one stream, %d in all", a.backlog, l.total)
	}
	return nil
}
