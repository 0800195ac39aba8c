package bridge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// maxKnown is how many questions are remembered to know those that come again.
const maxKnown = 512

// take answers a question. What the broker has retained was asked long ago, and what it sends again was answered already. The topics of
// answers are none of questions, so that nothing goes round.
//
// What is no question is heard by the tap; what that cannot take is not acknowledged, and the connection ends, so that the broker sends it again.
func (s *session) take(_ paho.Client, m paho.Message) {
	t, question := message.Parse(m.Topic())
	switch {
	case m.Retained() || len(m.Payload()) > maxPayload:
	case !question:
		if !s.hear(m) {
			return
		}
	case t.Verb == message.MembershipGet && t.ID != s.bridge.cfg.Hub.Node():
	case s.bridge.ours(t) && !s.bridge.again(m):
		s.desk.Answer(t, m.Payload())
	}
	m.Ack()
}

// lose ends the connection, for the first of several reasons.
func (s *session) lose(err error) {
	select {
	case s.lost <- err:
	default:
	}
	s.stop()
}

// ours says whether a device is of this node. On a broker of several nodes the others' questions are not answered.
func (b *Bridge) ours(t message.Topic) bool {
	if t.Verb == message.MembershipGet {
		return true
	}
	if t.Namespace == "" {
		_, ok := b.cfg.Hub.Find(t.Name)
		return ok
	}
	_, ok := b.cfg.Hub.Get(t.Namespace + "/" + t.Name)
	return ok
}

// again says whether the broker sends a message once more that was dealt with, and takes it for dealt with from now on.
func (b *Bridge) again(m paho.Message) bool {
	known := b.knows(m)
	b.dealtWith(m)
	return known
}

// knows says whether the broker sends a message once more that was dealt with.
func (b *Bridge) knows(m paho.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return m.Duplicate() && b.known[messageSum(m)]
}

// dealtWith remembers a message.
func (b *Bridge) dealtWith(m paho.Message) {
	sum := messageSum(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[sum] {
		return
	}
	b.known[sum] = true
	b.order = append(b.order, sum)
	if len(b.order) > maxKnown {
		delete(b.known, b.order[0])
		b.order = b.order[1:]
	}
}

func messageSum(m paho.Message) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d %s\x00%s", m.MessageID(), m.Topic(), m.Payload()))
}

// ErrAway says that the broker cannot be reached now.
var ErrAway = errors.New("the existing message bus cannot be reached")

// Publish gives a message to the clients of the broker; it is on its way when Publish returns. It fails with ErrAway while the broker cannot be reached.
func (b *Bridge) Publish(topic string, payload []byte) error {
	s := b.open.Load()
	if s == nil {
		return ErrAway
	}
	return s.put(topic, payload)
}

var errBehind = errors.New("the broker is behind: the message is left out")

// put brings a message into the queue. Handlers of the library must not wait for the broker.
func (s *session) put(topic string, payload []byte) error {
	select {
	case s.waiting <- letter{topic, payload}:
		return nil
	default:
		return errBehind
	}
}

// send brings messages to the broker in order, until ctx is done.
func (s *session) send(ctx context.Context) error {
	defer s.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-s.waiting:
			if !strings.HasPrefix(l.topic, "$") { // a tap hears no others
				s.bridge.own.publish(l.topic, l.payload)
			}
			if err := await(s.client.Publish(l.topic, s.bridge.cfg.QoS, false, l.payload)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
	}
}
