package mqtt

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

// hook decides who may do what, and answers.
type hook struct {
	mochi.HookBase
	hub     *hub.Hub
	clients *clients.File
	server  *mochi.Server
	log     *slog.Logger

	mu   sync.Mutex
	told map[string]string // by id: the desired values in the last delta
}

// ID names the hook in the broker.
func (*hook) ID() string { return "devices" }

// Provides says which calls the hook wants.
func (*hook) Provides(b byte) bool {
	return slices.Contains([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublish}, b)
}

// OnConnectAuthenticate lets known clients in and nobody else.
func (h *hook) OnConnectAuthenticate(_ *mochi.Client, p packets.Packet) bool {
	settings, err := h.clients.Load()
	if err != nil {
		return false
	}
	_, ok := settings.Authenticate(string(p.Connect.Username), string(p.Connect.Password))
	return ok
}

// OnACLCheck says whether a client may write to a topic, or read what a filter matches. A client that was removed may nothing.
func (h *hook) OnACLCheck(c *mochi.Client, topic string, write bool) bool {
	settings, err := h.clients.Load()
	if err != nil {
		return false
	}
	i := slices.IndexFunc(settings.Clients, func(k clients.Client) bool { return k.Name == string(c.Properties.Username) })
	if i < 0 {
		return false
	}
	who := settings.Clients[i]
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

// OnPublish answers what is a question to the node. The question itself goes to nobody else.
func (h *hook) OnPublish(c *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if c.Net.Inline {
		return p, nil
	}
	t, ok := message.Parse(p.TopicName)
	if !ok {
		return p, nil
	}
	p.Ignore = true
	h.answer(t, p.Payload)
	return p, packets.CodeSuccessIgnore
}
