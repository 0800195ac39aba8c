package mqtt

import (
	"errors"
	"log/slog"
	"slices"
	"strings"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/desk"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// nobody is a topic that nobody may read: that of a last will that the node itself has taken.
const nobody = "$kedge/taken"

var errSlow = errors.New("the client does not take what waits for it")

// hook decides who may do what, and hands questions to the desk.
type hook struct {
	mochi.HookBase
	hub      *hub.Hub
	clients  *clients.File
	tap      Tap
	server   *mochi.Server
	desk     *desk.Desk
	queues   *queues
	sessions int // most of them
	log      *slog.Logger
}

// ID names the hook in the broker.
func (*hook) ID() string { return "devices" }

// Provides says which calls the hook wants.
func (*hook) Provides(b byte) bool {
	return slices.Contains([]byte{
		mochi.OnConnectAuthenticate, mochi.OnSessionEstablished, mochi.OnACLCheck, mochi.OnPacketRead, mochi.OnPublish, mochi.OnWill, mochi.OnDisconnect, mochi.OnClientExpired,
		mochi.OnPacketSent, mochi.OnPublishDropped, mochi.OnQosPublish, mochi.OnQosComplete, mochi.OnQosDropped,
	}, b)
}

// OnConnectAuthenticate lets known clients in and nobody else. A client may not take over the session of another, nor leave a last will on a
// topic that it may not write to.
func (h *hook) OnConnectAuthenticate(c *mochi.Client, p packets.Packet) bool {
	settings, err := h.clients.Load()
	if err != nil {
		return false
	}
	who, ok := settings.Authenticate(string(p.Connect.Username), string(p.Connect.Password), here(c))
	if !ok || p.Connect.WillFlag && !h.mayWrite(who, p.Connect.WillTopic) {
		return false
	}
	if other, there := h.server.Clients.Get(c.ID); there {
		return string(other.Properties.Username) == who.Name
	}
	return h.room()
}

// room says whether there may be one more session. Those of clients that are away make room.
func (h *hook) room() bool {
	if h.server.Clients.Len() < h.sessions {
		return true
	}
	for id, c := range h.server.Clients.GetAll() {
		if c.Closed() && !c.Net.Inline {
			h.OnClientExpired(c)
			h.server.Clients.Delete(id)
		}
	}
	return h.server.Clients.Len() < h.sessions
}

// OnSessionEstablished keeps the connection of a client.
func (h *hook) OnSessionEstablished(c *mochi.Client, _ packets.Packet) {
	if g, ok := c.Net.Conn.(*guarded); ok {
		g.prove()
	}
}

// OnACLCheck says whether a client may write to a topic, or read what a filter matches. A client that was removed may nothing.
func (h *hook) OnACLCheck(c *mochi.Client, topic string, write bool) bool {
	settings, err := h.clients.Load()
	if err != nil {
		return false
	}
	who, ok := settings.Client(string(c.Properties.Username), here(c))
	if !ok {
		return false
	}
	if write {
		return h.mayWrite(who, topic)
	}
	return c.State.Subscriptions.Len() <= maxSubscriptions && h.mayRead(who, topic)
}

func (h *hook) mayWrite(who clients.Client, topic string) bool {
	if strings.ContainsAny(topic, "+#") {
		return false
	}
	if t, ok := message.Parse(topic); ok {
		if t.Verb == message.MembershipGet {
			return t.ID == h.hub.Node()
		}
		return h.has(who, t.Namespace, t.Name)
	}
	if levels, ok := message.DeviceOf(topic); ok {
		// Data between drivers and applications passes; answers of the node are the node's.
		return strings.HasPrefix(topic, "$ke/") && strings.HasSuffix(topic, "/data/update") && h.hasLevels(who, levels)
	}
	return !strings.HasPrefix(topic, "$")
}

func (h *hook) mayRead(who clients.Client, filter string) bool {
	if levels, ok := message.DeviceOf(filter); ok {
		return len(who.Devices) == 0 || h.hasLevels(who, levels)
	}
	if strings.HasPrefix(filter, "$") {
		return message.OfNode(filter, h.hub.Node())
	}
	return true
}

// hasLevels takes the levels behind the prefix: one or two for the device, and its verb. A wildcard among them stands for all devices.
func (h *hook) hasLevels(who clients.Client, levels []string) bool {
	if len(who.Devices) == 0 {
		return true
	}
	if len(levels) < 2 || strings.ContainsAny(levels[0], "+#") {
		return false
	}
	if slices.Contains(who.Devices, levels[0]+"/"+levels[1]) {
		return len(levels) > 2
	}
	verbs := []string{"twin", "state", "data", "updated"}
	return slices.Contains(verbs, levels[1]) && h.has(who, "", levels[0])
}

// has says whether a client may use a device. A device that the node does not know is answered with 404 to those that may use all.
func (h *hook) has(who clients.Client, namespace, name string) bool {
	if len(who.Devices) == 0 {
		return true
	}
	key := hub.Key(namespace, name)
	if namespace == "" {
		found, ok := h.hub.Find(name)
		if !ok {
			return false
		}
		key = found
	}
	return slices.Contains(who.Devices, key)
}

// OnPacketRead ends the connection of a client that publishes to a wildcard: the library would leave it without an answer.
func (*hook) OnPacketRead(_ *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if p.FixedHeader.Type == packets.Publish && strings.ContainsAny(p.TopicName, "+#") {
		return p, packets.ErrRejectPacket
	}
	return p, nil
}

// OnPublish answers what is a question to the node. The question itself goes to nobody else.
func (h *hook) OnPublish(c *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if !c.Net.Inline {
		if t, ok := message.Parse(p.TopicName); ok {
			p.Ignore = true
			h.desk.Answer(t, p.Payload)
			return p, packets.CodeSuccessIgnore
		}
	}
	if !c.Net.Inline {
		if err := h.tell(p); err != nil {
			return p, err
		}
	}
	h.enqueue(p)
	return p, nil
}

// OnWill answers a last will that is a question to the node, and lets others pass.
func (h *hook) OnWill(_ *mochi.Client, w mochi.Will) (mochi.Will, error) {
	if t, ok := message.Parse(w.TopicName); ok {
		h.desk.Answer(t, w.Payload)
		w.TopicName, w.Payload = nobody, nil
	}
	return w, nil
}

// here says whether a client is on this machine.
func here(c *mochi.Client) bool { return strings.HasPrefix(c.Net.Listener, loopback) }
