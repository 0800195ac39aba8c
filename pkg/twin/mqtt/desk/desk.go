// Package desk answers what clients of a message bus ask of the twins of a node, and tells them of changes, over a broker of its own or
// somebody else's. Rooms of twin import it.
package desk

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// lookAgain is how often Announce asks whether it is needed.
const lookAgain = 2 * time.Second

// Config says whose twins they are and how clients are told.
type Config struct {
	Hub *hub.Hub
	// Publish sends a message to the bus, not retained. It is called by several at a time.
	Publish func(topic string, payload []byte) error
	Log     *slog.Logger
}

// Desk is safe for concurrent use.
type Desk struct {
	cfg Config

	mu   sync.Mutex
	told map[string]string // by id: the desired values in the last delta
}

// New publishes nothing.
func New(cfg Config) *Desk { return &Desk{cfg: cfg, told: map[string]string{}} }

// Announce tells of changes that others made, until ctx is done or needed says no, which is asked every few seconds. What is wanted and not
// so is told of every device at the start.
func (d *Desk) Announce(ctx context.Context, needed func() bool) {
	changes := d.cfg.Hub.Subscribe(hub.Specification|hub.Desired, true)
	defer changes.Close()
	known := map[string]bool{}
	for first := true; ctx.Err() == nil && needed(); first = false {
		wait, cancel := context.WithTimeout(ctx, lookAgain)
		changes.Await(wait)
		cancel()
		keys, _ := changes.Take()
		news := message.Membership{Base: base(""), Added: []message.Device{}, Removed: []message.Device{}}
		for _, key := range keys {
			v, ok := d.cfg.Hub.Get(key)
			switch {
			case ok && !known[key]:
				known[key] = true
				news.Added = append(news.Added, member(key, v))
			case !ok && known[key]:
				delete(known, key)
				d.forget(key)
				news.Removed = append(news.Removed, member(key, hub.View{}))
			}
			if ok {
				d.delta(message.OfDevice(key), v, "", first)
				d.deltaByName(key, v, first)
			}
		}
		if len(news.Added)+len(news.Removed) > 0 && !first {
			d.publish(message.MembershipUpdated(d.cfg.Hub.Node()), news)
		}
	}
}

// forget drops what was told of a device that is gone.
func (d *Desk) forget(key string) {
	_, name, _ := strings.Cut(key, "/")
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.told, key)
	delete(d.told, name)
}

// deltaByName tells clients of the older form, where the name alone means this device.
func (d *Desk) deltaByName(key string, v hub.View, again bool) {
	_, name, _ := strings.Cut(key, "/")
	if found, ok := d.cfg.Hub.Find(name); ok && found == key {
		d.delta(message.OfDevice(name), v, "", again)
	}
}
