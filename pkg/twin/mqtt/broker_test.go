package mqtt

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
)

const patience = 30 * time.Second

// site is a node with a broker and one device, and a client that may do everything.
type site struct {
	*testing.T
	hub     *hub.Hub
	file    *clients.File
	address string
}

func newSite(t *testing.T) *site { return newSiteWith(t, Config{}) }

// newSiteWith has settings of its own; cfg says nothing of the hub.
func newSiteWith(t *testing.T, cfg Config) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h, err := hub.New(hub.Config{Dir: t.TempDir(), Node: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, hub: h, file: &clients.File{Path: filepath.Join(t.TempDir(), "bus.json")}, address: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.file.Listen(s.address); err != nil {
		t.Fatal(err)
	}
	s.device("d1", "100")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	cfg.Hub, cfg.Log = h, log
	if cfg.Clients != nil { // what it says beside its place
		s.file.Addresses, s.file.Credentials, s.file.Anonymous = cfg.Clients.Addresses, cfg.Clients.Credentials, cfg.Clients.Anonymous
	}
	cfg.Clients = s.file
	b := New(cfg)
	b.every = 20 * time.Millisecond
	go func() { done <- b.Run(ctx) }()
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func (s *site) device(name, desired string) {
	s.Helper()
	m := &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Spec: v1beta1.DeviceModelSpec{Properties: []v1beta1.ModelProperty{
		{Name: "speed", Type: "INT", AccessMode: "ReadWrite", Minimum: "0", Maximum: "1000"},
		{Name: "text", Type: "STRING", AccessMode: "ReadWrite"},
		{Name: "heat", Type: "FLOAT", AccessMode: "ReadOnly"},
	}}}
	d := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1beta1.DeviceSpec{
		DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, NodeName: "n1",
		Properties: []v1beta1.Property{{Name: "speed", Desired: &v1beta1.Value{Value: desired}}, {Name: "heat"}},
	}}
	if err := s.hub.PutModel(m); err != nil {
		s.Fatal(err)
	}
	if err := s.hub.PutDevice(d); err != nil {
		s.Fatal(err)
	}
}

// bus is a connected client that collects what it hears.
type bus struct {
	*site
	client paho.Client
	heard  chan paho.Message
}

func (s *site) dial(user, password string) (*bus, error) {
	b := &bus{site: s, heard: make(chan paho.Message, 100)}
	o := paho.NewClientOptions().AddBroker("tcp://" + s.address).SetUsername(user).SetPassword(password).SetClientID(user).
		SetConnectTimeout(patience).SetAutoReconnect(false).SetOrderMatters(true)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { b.heard <- m })
	b.client = paho.NewClient(o)
	token := b.client.Connect()
	token.WaitTimeout(patience)
	s.Cleanup(func() { b.client.Disconnect(0) })
	return b, token.Error()
}

// join makes a client and waits until the broker is there.
func (s *site) join(user string, devices ...string) *bus {
	s.Helper()
	password, err := s.file.Add(user, devices)
	if err != nil {
		s.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := s.dial(user, password)
		if err == nil {
			return b
		}
		if time.Now().After(end) {
			s.Fatal(err)
		}
	}
}

func (b *bus) subscribe(filter string) bool {
	b.Helper()
	token := b.client.Subscribe(filter, 0, nil)
	if !token.WaitTimeout(patience) {
		b.Fatal("no answer to a subscription")
	}
	return token.Error() == nil && token.(*paho.SubscribeToken).Result()[filter] < 0x80
}

func (b *bus) say(topic, payload string) {
	b.Helper()
	if token := b.client.Publish(topic, 0, false, payload); !token.WaitTimeout(patience) || token.Error() != nil {
		b.Fatalf("publish: %v", token.Error())
	}
}

// hear expects the next message to have the topic, and to contain each part. What the node tells of its own accord may come between.
func (b *bus) hear(topic string, parts ...string) string {
	b.Helper()
	for late := time.After(patience); ; {
		select {
		case m := <-b.heard:
			if m.Topic() != topic && strings.HasSuffix(m.Topic(), "/delta") && strings.HasPrefix(string(m.Payload()), `{"event_id":"",`) {
				continue
			}
			if m.Topic() != topic {
				b.Fatalf("heard %s %s, want %s", m.Topic(), m.Payload(), topic)
			}
			for _, p := range parts {
				if !strings.Contains(string(m.Payload()), p) {
					b.Errorf("%s: %s does not contain %s", m.Topic(), m.Payload(), p)
				}
			}
			return string(m.Payload())
		case <-late:
			b.Fatalf("nothing on %s", topic)
		}
	}
}

func TestTopicTable(t *testing.T) {
	s := newSite(t)
	b := s.join("all")
	for _, id := range []string{"default/d1", "d1"} {
		at := "$hw/events/device/" + id + "/"
		if !b.subscribe(at + "#") {
			t.Fatal("subscription was refused")
		}
		b.say(at+"twin/get", `{"event_id":"e1"}`)
		b.hear(at+"twin/get/result", `"event_id":"e1"`, `"speed":{"expected":{"value":"100"`, `"timestamp":`)
		b.say(at+"twin/get", ``)
		b.hear(at+"twin/get/result", `"speed"`)
		b.say(at+"twin/update", `{"event_id":"e2","twin":{"speed":{"actual":{"value":"90","metadata":{"timestamp":5}}}}}`)
		if got := b.hear(at+"twin/update/result", `"event_id":"e2"`, `"actual":{"value":"90"`); strings.Contains(got, "version") || strings.Contains(got, "code") {
			t.Errorf("result %s", got)
		}
		b.hear(at+"twin/update/delta", `"delta":{"speed":"100"}`)
		b.hear(at+"twin/update/document", `"last":`, `"current":{`, `"value":"90"`)
		b.say(at+"twin/update", `{"twin":{"speed":{"actual":{"value":"100"}},"mine":{"actual":{"value":"{\"json\": \"ü\"}"},"optional":true,"metadata":{"type":"string"}}}}`)
		b.hear(at+"twin/update/result", `"mine"`)
		b.hear(at+"twin/update/document", `"mine":{"last":null,"current":{`)
		b.say(at+"twin/update", `{"twin":{"mine":null}}`)
		b.hear(at + "twin/update/result")
		b.hear(at+"twin/update/document", `"current":null`)
		b.refusals(at)
		b.say(at+"state/update", `{"event_id":"e3","state":"Online"}`)
		b.hear(at+"state/update/result", `"device":{"name":"d1","state":"online","lastOnlineTime":"2`)
		token := b.client.Unsubscribe(at + "#")
		token.WaitTimeout(patience)
	}
}

// refusals are answered on the sender's own topic.
func (b *bus) refusals(at string) {
	b.Helper()
	for payload, want := range map[string]string{
		`{`: `"code":400`, `[]`: `"code":400`, `{"twin":{}}`: `"code":400`, `{"twin":{"speed":{"actual":{"value":"fast"}}}}`: "is not a whole number",
		`{"twin":{"speed":{"expected":{"value":"1001"}}}}`:                                  "above the maximum 1000",
		`{"twin":{"heat":{"expected":{"value":"1"}}}}`:                                      "ReadOnly",
		`{"twin":{"speed":null}}`:                                                           "in the specification",
		`{"twin":{"x":{"metadata":{"type":"float64"}}}}`:                                    "none of",
		`{"twin":{"speed":{"actual":{"value":"1"},"actual_version":{"cloud":0,"edge":0}}}}`: `"code":409`,
		`{"twin":{"speed":{"actual":{"value":"1"}},"heat":{"expected":{"value":"2"}}}}`:     `"code":400`,
		`{"twin":{"speed":{"actual":{"value":"` + strings.Repeat("1", 70_000) + `"}}}}`:     "more than 65536",
	} {
		b.say(at+"twin/update", payload)
		b.hear(at+"twin/update/result", want)
	}
	b.say(at+"state/update", `{"state":"asleep"}`)
	b.hear(at+"state/update/result", `"code":400`, "asleep")
	b.say(at+"twin/get", `nonsense`)
	b.hear(at+"twin/get/result", `"code":400`)
	if v, _ := b.hub.Get("default/d1"); v.State.Twins["speed"].Reported.Value != "100" {
		b.Errorf("a refused message left %v", v.State.Twins["speed"].Reported)
	}
	b.subscribe("$hw/events/device/none/#")
	b.say("$hw/events/device/none/twin/update", `{"event_id":"e9","twin":{"a":{"actual":{"value":"1"}}}}`)
	b.hear("$hw/events/device/none/twin/update/result", `"code":404`, `"event_id":"e9"`)
}

func TestDesiredOfTheClusterReachesTheBus(t *testing.T) {
	s := newSite(t)
	b := s.join("all")
	b.subscribe("$hw/events/device/default/d1/#")
	b.subscribe("$hw/events/node/n1/membership/#")
	begin := time.Now()
	s.device("d1", "200")
	b.hear("$hw/events/device/default/d1/twin/update/delta", `"delta":{"speed":"200"}`)
	t.Logf("after %s", time.Since(begin).Round(time.Microsecond))
	s.device("d2", "1")
	b.hear("$hw/events/node/n1/membership/updated", `"added_devices":[{"id":"default/d2","name":"d2"}]`, `"removed_devices":[]`)
	b.say("$hw/events/node/n1/membership/get", `{"event_id":"m"}`)
	var members struct{ Devices []struct{ ID string } }
	if err := json.Unmarshal([]byte(b.hear("$hw/events/node/n1/membership/get/result", `"event_id":"m"`)), &members); err != nil || len(members.Devices) != 2 {
		t.Errorf("%v, %v", members, err)
	}
	if err := s.hub.RemoveDevice("default/d2"); err != nil {
		t.Fatal(err)
	}
	b.hear("$hw/events/node/n1/membership/updated", `"removed_devices":[{"id":"default/d2"`)
}

func TestWhoMayWhat(t *testing.T) {
	s := newSite(t)
	one := s.join("one", "default/d1")
	s.device("d2", "1")
	for _, wrong := range [][2]string{{"", ""}, {"one", ""}, {"one", "x"}, {"two", "x"}} {
		if _, err := s.dial(wrong[0], wrong[1]); err == nil {
			t.Errorf("%v was let in", wrong)
		}
	}
	for filter, want := range map[string]bool{
		"$hw/events/device/default/d1/#": true, "$hw/events/device/d1/twin/update/delta": true, "$hw/events/device/default/d2/#": false,
		"$hw/events/device/+/+/twin/update": false, "$hw/events/device/#": false, "$hw/events/node/n1/membership/updated": true, "$hw/#": false, "$SYS/#": false,
	} {
		if got := one.subscribe(filter); got != want {
			t.Errorf("subscription to %s: %v", filter, got)
		}
	}
	all := s.join("all")
	all.subscribe("$hw/events/device/#")
	for _, topic := range []string{
		"$hw/events/device/default/d2/twin/update", "$hw/events/device/d2/twin/update", "$hw/events/device/default/d1/twin/update/delta",
		"$hw/events/device/default/d1/twin/get/result", "$SYS/x", "$hw/events/node/other/membership/get",
	} {
		one.say(topic, `{"twin":{"speed":{"actual":{"value":"1"}}}}`)
	}
	one.say("$hw/events/device/default/d1/twin/get", `{"event_id":"after all"}`)
	all.hear("$hw/events/device/default/d1/twin/get/result", "after all")
	if _, err := s.file.Remove("one"); err != nil {
		t.Fatal(err)
	}
	one.say("$hw/events/device/default/d1/twin/get", `{"event_id":"removed"}`)
	all.say("$hw/events/device/default/d1/twin/get", `{"event_id":"still here"}`)
	all.hear("$hw/events/device/default/d1/twin/get/result", "still here")
}

// closed waits until the broker has ended the connection.
func (b *bus) closed(why string) {
	b.Helper()
	for end := time.Now().Add(patience); b.client.IsConnected(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal(why)
		}
	}
}

func TestPayloadOfOneMebibyte(t *testing.T) {
	b := newSite(t).join("all")
	b.client.Publish("$hw/events/device/d1/twin/update", 0, false, strings.Repeat("x", 1<<20)).WaitTimeout(patience)
	b.closed("a payload of 1 MiB was taken")
}
