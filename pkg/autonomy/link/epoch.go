package link

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
)

// epoch is the time from one loss of the link to the next; connections and requests do not outlive it.
type epoch struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	ways   map[way]*counted
	conns  map[net.Conn]struct{} // open, or on the way to it; nil when the epoch has ended
}

func newEpoch() *epoch {
	ctx, cancel := context.WithCancel(context.Background())
	return &epoch{ctx: ctx, cancel: cancel, ways: map[way]*counted{}, conns: map[net.Conn]struct{}{}}
}

// end gives up what goes on in the epoch: connections too, those in use and those on the way. A handshake that goes on when the line is back, for
// nobody, costs as much as all the rest.
func (e *epoch) end() {
	e.cancel()
	e.mu.Lock()
	open, ways := slices.Collect(maps.Keys(e.conns)), slices.Collect(maps.Values(e.ways))
	e.conns = nil
	e.mu.Unlock()
	for _, t := range ways {
		t.CloseIdleConnections()
	}
	for _, c := range open {
		_ = c.Close()
	}
}

// hold has a connection end with the epoch, and says whether that has not ended.
func (e *epoch) hold(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

func (e *epoch) release(c net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}
