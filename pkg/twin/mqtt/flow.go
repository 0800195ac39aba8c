package mqtt

import (
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// What follows counts the messages on their way: the broker's library bounds their number only.

// enqueue counts a message for all who will get it.
func (h *hook) enqueue(p packets.Packet) {
	for id := range h.server.Topics.Subscribers(p.TopicName).Subscriptions {
		c, ok := h.server.Clients.Get(id)
		if !ok || c.Net.Inline || c.Closed() {
			continue
		}
		h.shut(h.queues.put(c, len(p.Payload)))
		if c.Closed() {
			h.queues.gone(c)
		}
	}
}

// shut ends the connection of a client for whom too much waits; nil is nobody.
func (h *hook) shut(c *mochi.Client) {
	if c != nil {
		c.Stop(errSlow)
		c.ClearInflights()
	}
}

// OnPacketSent counts what a client has taken.
func (h *hook) OnPacketSent(c *mochi.Client, p packets.Packet, _ []byte) {
	if p.FixedHeader.Type == packets.Publish {
		h.queues.took(c, len(p.Payload))
	}
}

// OnPublishDropped counts what did not find room in a queue.
func (h *hook) OnPublishDropped(c *mochi.Client, p packets.Packet) {
	h.queues.took(c, len(p.Payload))
}

// OnQosPublish counts what a client has to acknowledge.
func (h *hook) OnQosPublish(c *mochi.Client, p packets.Packet, _ int64, _ int) {
	if p.FixedHeader.Type == packets.Publish {
		h.shut(h.queues.hold(c, p.PacketID, len(p.Payload)))
	}
}

// OnQosComplete counts what a client has acknowledged.
func (h *hook) OnQosComplete(c *mochi.Client, p packets.Packet) { h.queues.sure(c, p.PacketID) }

// OnQosDropped counts what a client will never acknowledge.
func (h *hook) OnQosDropped(c *mochi.Client, p packets.Packet) { h.queues.sure(c, p.PacketID) }

// OnDisconnect empties the queue of a client.
func (h *hook) OnDisconnect(c *mochi.Client, _ error, _ bool) { h.queues.gone(c) }

// OnClientExpired forgets what a client had subscribed to.
func (h *hook) OnClientExpired(c *mochi.Client) {
	h.server.UnsubscribeClient(c)
	c.ClearInflights()
	h.queues.gone(c)
}
