package hub

import (
	"context"
	"sync"
)

// Kind says what about a device has changed. Kinds are added up.
type Kind uint

// Kinds of changes.
const (
	// Specification: the device or its model appeared, changed or went away.
	Specification Kind = 1 << iota
	// Desired: what the driver shall do.
	Desired
	// Reported: a value, what was taken up, or the state.
	Reported
	// Refreshed: nothing but the time of a report.
	Refreshed
)

// Changes tells one listener which devices to look at again. It is bounded by the number of devices: what has not been looked at yet is
// not queued twice.
type Changes struct {
	hub  *Hub
	want Kind

	mu    sync.Mutex
	kinds map[string]Kind
	order []string
	wake  chan struct{}
}

// Subscribe starts to collect changes of the kinds. All devices there are count as changed when all is true.
func (h *Hub) Subscribe(want Kind, all bool) *Changes {
	c := &Changes{hub: h, want: want, kinds: map[string]Kind{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = append(h.subs, c)
	if all {
		for key := range h.devices {
			c.add(key, want)
		}
	}
	return c
}

// Close ends the collection.
func (c *Changes) Close() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for i, s := range c.hub.subs {
		if s == c {
			c.hub.subs = append(c.hub.subs[:i:i], c.hub.subs[i+1:]...)
			return
		}
	}
}

func (c *Changes) add(key string, kind Kind) {
	if kind &= c.want; kind == 0 {
		return
	}
	c.mu.Lock()
	if c.kinds[key] == 0 {
		c.order = append(c.order, key)
	}
	c.kinds[key] |= kind
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Take returns all that has changed since the last call, the longest waiting first, without waiting.
func (c *Changes) Take() (keys []string, kinds map[string]Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys, kinds = c.order, c.kinds
	c.order, c.kinds = nil, map[string]Kind{}
	return keys, kinds
}

// Await waits for a change; it returns false when ctx is done.
func (c *Changes) Await(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.wake:
		return true
	}
}

// changed wants the hub's lock.
func (h *Hub) changed(key string, kind Kind) {
	for _, c := range h.subs {
		c.add(key, kind)
	}
}

// Again puts devices back that could not be dealt with.
func (c *Changes) Again(keys []string) {
	for _, key := range keys {
		c.add(key, c.want)
	}
}

// Join takes over what another listener has collected.
func (c *Changes) Join(other *Changes) {
	keys, _ := other.Take()
	c.Again(keys)
}
