package bridge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// maxKnown is how many questions are remembered to know those that come again.
const maxKnown = 512

// take answers a question. What the broker has retained was asked long ago, and what it sends again was answered already. The topics of
// answers are none of questions, so that nothing goes round.
func (s *session) take(_ paho.Client, m paho.Message) {
	t, ok := message.Parse(m.Topic())
	if !ok || m.Retained() || len(m.Payload()) > maxPayload || t.Verb == message.MembershipGet && t.ID != s.bridge.cfg.Hub.Node() {
		return
	}
	if !s.bridge.ours(t) || s.bridge.again(m) {
		return
	}
	s.desk.Answer(t, m.Payload())
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

// again says whether the broker has sent a message before. It marks those that it sends once more.
func (b *Bridge) again(m paho.Message) bool {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s\x00%s", m.MessageID(), m.Topic(), m.Payload()))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[sum] && m.Duplicate() {
		return true
	}
	if !b.known[sum] {
		b.known[sum] = true
		b.order = append(b.order, sum)
	}
	if len(b.order) > maxKnown {
		delete(b.known, b.order[0])
		b.order = b.order[1:]
	}
	return false
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
			if err := await(s.client.Publish(l.topic, s.bridge.cfg.QoS, false, l.payload)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
	}
}
