package bridge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Tap hears what clients of the broker publish besides questions to the node.
type Tap interface {
	// Wanted says whether the bridge is to run for it, devices or not. It must not wait.
	Wanted() bool
	// Filters are the topics that it wants to hear, and a channel that is closed when they are others.
	Filters() (filters []string, changed <-chan struct{})
	// Take is called for each message before the broker is told that it arrived. After an error the broker sends it again.
	Take(topic string, payload []byte) error
}

// needed says whether the bridge is to be connected.
func (b *Bridge) needed() bool {
	return b.cfg.Hub.Len() > 0 || b.cfg.Tap != nil && b.cfg.Tap.Wanted()
}

// follow subscribes to what the tap wants until ctx is done. A topic that the broker refuses is said and left out: devices do not suffer for it.
func (s *session) follow(ctx context.Context) {
	have := []string{}
	for {
		filters, changed := s.bridge.cfg.Tap.Filters()
		slices.Sort(filters)
		filters = slices.Compact(filters)
		for _, f := range have {
			if _, still := slices.BinarySearch(filters, f); !still {
				if err := await(s.client.Unsubscribe(f)); err != nil {
					s.lose(fmt.Errorf("unsubscribe: %w", err))
					return
				}
			}
		}
		for _, f := range filters {
			if slices.Contains(have, f) {
				continue
			}
			token := s.client.Subscribe(f, s.bridge.cfg.QoS, nil)
			err := await(token)
			if t, ok := token.(*paho.SubscribeToken); ok && t.Result()[f] > 2 {
				s.bridge.cfg.Log.Warn("the existing message bus refuses a topic that a rule wants", "topic", f)
				continue
			}
			if err != nil {
				s.lose(fmt.Errorf("subscribe: %w", err))
				return
			}
		}
		have = filters
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// hear gives a message to the tap, once, and not what the bridge itself has published. It says whether the broker may forget the message.
func (s *session) hear(m paho.Message) bool {
	b := s.bridge
	if b.cfg.Tap == nil || b.own.mine(m.Topic(), m.Payload()) || b.knows(m) {
		return true
	}
	if err := b.cfg.Tap.Take(m.Topic(), m.Payload()); err != nil {
		s.lose(fmt.Errorf("take message: %w", err))
		return false
	}
	b.dealtWith(m)
	return true
}

// echoTime is how long the broker may take to send back what the bridge has published, where the tap hears that topic.
const echoTime = time.Minute

// echoes knows what the bridge has published lately: MQTT 3.1.1 sends it back to who has subscribed to it.
type echoes struct {
	mu   sync.Mutex
	sent []echo
}

type echo struct {
	sum [32]byte
	at  time.Time
}

func sumOf(topic string, payload []byte) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", topic, payload))
}

func (e *echoes) publish(topic string, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.sent) >= maxKnown {
		e.sent = e.sent[1:]
	}
	e.sent = append(e.sent, echo{sumOf(topic, payload), time.Now()})
}

// mine says whether a message is one of those, and forgets it.
func (e *echoes) mine(topic string, payload []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent = slices.DeleteFunc(e.sent, func(s echo) bool { return time.Since(s.at) > echoTime })
	sum := sumOf(topic, payload)
	i := slices.IndexFunc(e.sent, func(s echo) bool { return s.sum == sum })
	if i >= 0 {
		e.sent = slices.Delete(e.sent, i, i+1)
	}
	return i >= 0
}
