package disk

import (
	"errors"
	"sync"
	"time"
)

// errOff answers requests that arrive after the machine lost its power.
var errOff = errors.New("the power is off")

// hold is a stop that begins with the first write in the cache.
type hold struct {
	reached, release chan struct{}
	once             sync.Once
}

// Hold stops the disk the moment a write is in the cache, so that a power cut that follows has something to lose; requests then get no
// answer until Off. It returns whether that moment came within the time; if it did not, the hold stays in force.
func (d *Disk) Hold(limit time.Duration) bool {
	h := &hold{reached: make(chan struct{}), release: make(chan struct{})}
	d.mu.Lock()
	d.hold = h
	d.touchHold()
	d.mu.Unlock()
	select {
	case <-h.reached:
		return true
	case <-time.After(limit):
		return false
	}
}

// Off refuses every request that is waiting or still arrives. PowerCut ends it.
func (d *Disk) Off() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	if d.hold != nil {
		close(d.hold.release)
		d.hold = nil
	}
}

// enter takes the lock for one request, after waiting out a hold.
func (d *Disk) enter() error {
	d.mu.Lock()
	for d.hold != nil && len(d.cache) > 0 {
		release := d.hold.release
		d.mu.Unlock()
		<-release
		d.mu.Lock()
	}
	if d.off {
		d.mu.Unlock()
		return errOff
	}
	return nil
}

// touchHold tells a waiting Hold that the cache has something. The lock is held.
func (d *Disk) touchHold() {
	if d.hold != nil && len(d.cache) > 0 {
		d.hold.once.Do(func() { close(d.hold.reached) })
	}
}
