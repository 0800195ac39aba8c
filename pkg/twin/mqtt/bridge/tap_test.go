package bridge

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

// ear is a tap.
type ear struct {
	mu      sync.Mutex
	filters []string
	changed chan struct{}
	heard   []string
	deaf    int // how many messages it cannot take
}

func newEar(filters ...string) *ear { return &ear{filters: filters, changed: make(chan struct{})} }

func (e *ear) Wanted() bool { return true }

func (e *ear) Filters() ([]string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.filters), e.changed
}

func (e *ear) want(filters ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.filters, e.changed = filters, make(chan struct{})
}

func (e *ear) Take(topic string, payload []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaf > 0 {
		e.deaf--
		return errors.New("the disk is full")
	}
	e.heard = append(e.heard, topic+" "+string(payload))
	return nil
}

func (e *ear) has(line string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.heard, line)
}

// settled publishes a message until the tap hears it: by then it has subscribed.
func (c *client) settled(e *ear, topic string) {
	c.Helper()
	c.await("subscription to "+topic, func() bool {
		c.say(topic, "fence", false)
		return e.has(topic + " fence")
	})
}

func TestTapOfAnExistingBroker(t *testing.T) {
	broker := newExisting(t)
	broker.start()
	login := broker.file("login", "kedge secret-kedge\n")
	e := newEar("default/test/#")
	n := newNode(t, broker, Config{Credentials: login, QoS: 1, Tap: e})
	c := broker.client("default/#")
	c.settled(e, "default/test/first")
	c.say("default/other", "nobody wants this", false)
	if err := n.bridge.Publish("default/test/own", []byte("of a rule")); err != nil {
		t.Fatal(err)
	}
	c.until("default/test/own", "of a rule")
	c.say("default/test/one", "1", false)
	broker.await("message", func() bool { return e.has("default/test/one 1") })
	if e.has("default/test/own of a rule") || e.has("default/other nobody wants this") {
		t.Errorf("heard %q", e.heard)
	}

	e.want("default/later")
	c.settled(e, "default/later")
	c.say("default/test/two", "2", false)
	c.say("default/later", "3", false)
	broker.await("message", func() bool { return e.has("default/later 3") })
	if e.has("default/test/two 2") {
		t.Error("a topic is heard that nobody wants any more")
	}

	// What the tap cannot take comes again, once, over a new connection.
	e.mu.Lock()
	e.deaf = 2
	e.mu.Unlock()
	c.say("default/later", "4", false)
	broker.await("message once more", func() bool { return e.has("default/later 4") })
	c.settled(e, "default/later")
	e.mu.Lock()
	defer e.mu.Unlock()
	count := 0
	for _, line := range e.heard {
		if line == "default/later 4" {
			count++
		}
	}
	if count != 1 || e.deaf != 0 {
		t.Errorf("heard %d times, deaf for %d: %q", count, e.deaf, e.heard)
	}
}

func TestTapHearsWhatWasSaidWhileTheBridgeWasAway(t *testing.T) {
	broker := newExisting(t)
	broker.start()
	login := broker.file("login", "kedge secret-kedge\n")
	e := newEar("default/test")
	c := broker.client("default/#")
	t.Run("first", func(t *testing.T) {
		newNode(t, broker, Config{Credentials: login, QoS: 1, Tap: e})
		c.settled(e, "default/test")
	})
	c.say("default/test", "meanwhile", false)
	newNode(t, broker, Config{Credentials: login, QoS: 1, Tap: e})
	broker.await("message", func() bool { return e.has("default/test meanwhile") })
}
