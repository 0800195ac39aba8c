package mqtt

import (
	"errors"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

// Tap hears what clients of the bus publish besides questions to the node.
type Tap interface {
	// Wanted says whether the bus is to run for it, devices or not. It must not wait.
	Wanted() bool
	// Take is called for each message before the client is told that it arrived. After an error it is not, and nobody gets the message.
	Take(topic string, payload []byte) error
}

// ErrClosed says that the bus does not run, so that nobody can hear a message.
var ErrClosed = errors.New("the message bus of this node is closed: no client was added to it")

// needed says whether the broker is to run.
func (b *Broker) needed(settings clients.Settings) bool {
	return settings.Somebody() && (b.cfg.Hub.Len() > 0 || b.cfg.Tap != nil && b.cfg.Tap.Wanted())
}

// Publish gives a message to the clients that have subscribed to its topic. It fails with ErrClosed while the bus does not run.
func (b *Broker) Publish(topic string, payload []byte) error {
	server := b.open.Load()
	if server == nil {
		return ErrClosed
	}
	return server.Publish(topic, payload, false, 1)
}

// tell hands a message of a client to the tap. An MQTT client that is not told that it arrived sends it again.
func (h *hook) tell(p packets.Packet) error {
	if h.tap == nil {
		return nil
	}
	if err := h.tap.Take(p.TopicName, p.Payload); err != nil {
		h.log.Debug("message was not taken", "topic", p.TopicName, "error", err)
		return packets.ErrRejectPacket
	}
	return nil
}
