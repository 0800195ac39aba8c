package mqtt

import (
	"fmt"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// connect is dial with options of its own.
func (s *site) connect(user, id string, change func(*paho.ClientOptions)) (*bus, error) {
	s.Helper()
	password, err := s.file.Add(user, map[string][]string{"one": {"default/d1"}}[user])
	if err != nil {
		s.Fatal(err)
	}
	b := &bus{site: s, heard: make(chan paho.Message, 1000)}
	o := paho.NewClientOptions().AddBroker("tcp://" + s.address).SetUsername(user).SetPassword(password).SetClientID(id).
		SetConnectTimeout(patience).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { b.heard <- m })
	change(o)
	b.client = paho.NewClient(o)
	token := b.client.Connect()
	token.WaitTimeout(patience)
	s.Cleanup(func() { b.client.Disconnect(0) })
	return b, token.Error()
}

func TestSessionsBelongToTheirOwner(t *testing.T) {
	s := newSite(t)
	all := s.join("all")
	all.subscribe("$hw/events/device/#")
	if _, err := s.connect("one", "all", func(o *paho.ClientOptions) { o.SetCleanSession(false) }); err == nil {
		t.Error("a client took over the session of another")
	}
	if !all.client.IsConnected() {
		t.Error("a client was pushed out by another that has its name")
	}
	all.say("$hw/events/device/default/d1/twin/get", `{"event_id":"mine"}`)
	all.hear("$hw/events/device/default/d1/twin/get/result", "mine")
}

func TestLastWill(t *testing.T) {
	s := newSite(t)
	all := s.join("all")
	all.subscribe("$hw/events/device/#")
	will := func(topic string) func(*paho.ClientOptions) {
		return func(o *paho.ClientOptions) { o.SetWill(topic, `{"event_id":"gone","state":"offline"}`, 1, false) }
	}
	for _, foreign := range []string{"$hw/events/device/default/d1/twin/update/delta", "$hw/events/device/default/d2/state/update", "$SYS/x"} {
		if _, err := s.connect("one", "w", will(foreign)); err == nil {
			t.Errorf("a last will for %s was taken", foreign)
		}
	}
	b, err := s.connect("one", "w", will("$hw/events/device/default/d1/state/update"))
	if err != nil {
		t.Fatal(err)
	}
	b.client.Publish("a/+", 0, false, "x") // and the broker ends the connection
	b.closed("published to a wildcard")
	all.hear("$hw/events/device/default/d1/state/update/result", `"event_id":"gone"`, `"state":"offline"`)
}

func TestWildcardPublish(t *testing.T) {
	s := newSite(t)
	for qos := range byte(3) {
		b, err := s.connect("all", fmt.Sprint("wild", qos), func(*paho.ClientOptions) {})
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			b, err = s.connect("all", fmt.Sprint("wild", qos), func(*paho.ClientOptions) {})
		}
		if err != nil {
			t.Fatal(err)
		}
		b.client.Publish("$hw/events/device/+/twin/update", qos, false, `{"twin":{"speed":{"actual":{"value":"1"}}}}`)
		b.closed("published to a wildcard")
	}
	if v, _ := s.hub.Get("default/d1"); v.State.Twins["speed"].Reported != nil {
		t.Error("a message to a wildcard was taken")
	}
}

// TestSessionsAreBounded leaves more sessions than there may be.
func TestSessionsAreBounded(t *testing.T) {
	s := newSiteWith(t, Config{Limits: Limits{Connections: 8}})
	s.join("first")
	for i := range 30 {
		b, err := s.connect("all", fmt.Sprint("left", i), func(o *paho.ClientOptions) { o.SetCleanSession(false) })
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		b.subscribe("$hw/events/device/#")
		b.client.Disconnect(0)
	}
	held := []*bus{}
	for i := range 20 {
		b, err := s.connect("all", fmt.Sprint("held", i), func(*paho.ClientOptions) {})
		if err == nil {
			held = append(held, b)
		}
	}
	if len(held) == 0 || len(held) > 8 {
		t.Errorf("%d connections of at most 8", len(held))
	}
}

func TestLimitOfPackets(t *testing.T) {
	s := newSiteWith(t, Config{Limits: Limits{Packet: 2048}})
	b := s.join("all")
	b.subscribe("crowd")
	b.say("crowd", string(make([]byte, 1800)))
	b.hear("crowd")
	b.client.Publish("crowd", 0, false, make([]byte, 2100))
	b.closed("a packet above the limit was taken")
}
