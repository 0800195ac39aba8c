package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
)

const limit = 60 * time.Second

// existing is Debian's mosquitto with a password file.
type existing struct {
	*testing.T
	dir, port string
	cmd       *exec.Cmd
}

func newExisting(t *testing.T) *existing {
	t.Helper()
	for _, name := range []string{"mosquitto", "mosquitto_passwd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("mosquitto is not installed: scripts/install-test-deps.sh installs it")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	e := &existing{T: t, dir: t.TempDir(), port: port}
	passwords := e.file("passwords", "")
	for _, user := range []string{"kedge", "press"} {
		if out, err := exec.Command("mosquitto_passwd", "-b", passwords, user, "secret-"+user).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	e.file("conf", fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous false\npassword_file %s\nuser root\npersistence true\npersistence_location %s/\n", port, passwords, e.dir))
	t.Cleanup(e.stop)
	return e
}

func (e *existing) file(name, text string) string {
	e.Helper()
	path := filepath.Join(e.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		e.Fatal(err)
	}
	return path
}

func (e *existing) start() {
	e.Helper()
	e.cmd = exec.Command("mosquitto", "-c", filepath.Join(e.dir, "conf"))
	if err := e.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.await("mosquitto", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+e.port)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (e *existing) stop() {
	if e.cmd != nil {
		_ = e.cmd.Process.Signal(syscall.SIGTERM)
		_ = e.cmd.Wait()
		e.cmd = nil
	}
}

func (e *existing) await(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("no %s", what)
		}
	}
}

func newHub(t *testing.T) *hub.Hub {
	t.Helper()
	h, err := hub.New(hub.Config{Dir: t.TempDir(), Node: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// node has two devices and a bridge.
type node struct {
	*existing
	hub    *hub.Hub
	bridge *Bridge
}

func newNode(t *testing.T, e *existing, cfg Config) *node {
	t.Helper()
	h := newHub(t)
	n := &node{existing: e, hub: h}
	cfg.Hub, cfg.Broker, cfg.Log = h, "tcp://127.0.0.1:"+e.port, slog.New(slog.DiscardHandler)
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.pace, n.bridge = 50*time.Millisecond, b
	n.device("d1", "100")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
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
	return n
}

func (n *node) device(name, desired string) {
	n.Helper()
	m := &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Spec: v1beta1.DeviceModelSpec{Properties: []v1beta1.ModelProperty{
		{Name: "speed", Type: "INT", AccessMode: "ReadWrite", Minimum: "0", Maximum: "1000"},
	}}}
	d := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1beta1.DeviceSpec{
		DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, NodeName: "n1", Properties: []v1beta1.Property{{Name: "speed", Desired: &v1beta1.Value{Value: desired}}},
	}}
	for _, err := range []error{n.hub.PutModel(m), n.hub.PutDevice(d)} {
		if err != nil {
			n.Fatal(err)
		}
	}
}

// client is one of the existing broker that stays connected.
type client struct {
	*existing
	paho.Client
	heard chan paho.Message
}

func (e *existing) client(filter string) *client {
	e.Helper()
	c := &client{existing: e, heard: make(chan paho.Message, 1000)}
	o := paho.NewClientOptions().AddBroker("tcp://127.0.0.1:" + e.port).SetUsername("press").SetPassword("secret-press").SetClientID("press").
		SetAutoReconnect(true).SetMaxReconnectInterval(100 * time.Millisecond).SetCleanSession(false).SetResumeSubs(true)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { c.heard <- m })
	c.Client = paho.NewClient(o)
	if t := c.Connect(); !t.WaitTimeout(limit) || t.Error() != nil {
		e.Fatal(t.Error())
	}
	e.Cleanup(func() { c.Disconnect(0) })
	if t := c.Subscribe(filter, 1, nil); !t.WaitTimeout(limit) || t.Error() != nil {
		e.Fatal(t.Error())
	}
	return c
}

func (c *client) say(topic, payload string, retained bool) {
	c.Helper()
	if t := c.Publish(topic, 1, retained, payload); !t.WaitTimeout(limit) || t.Error() != nil {
		c.Fatal(t.Error())
	}
}

// until returns what is heard up to a message with the topic and the part.
func (c *client) until(topic, part string) (heard []string) {
	c.Helper()
	for late := time.After(limit); ; {
		select {
		case m := <-c.heard:
			heard = append(heard, m.Topic()+" "+string(m.Payload()))
			if m.Topic() == topic && strings.Contains(string(m.Payload()), part) {
				return heard
			}
		case <-late:
			c.Fatalf("no %s with %s; heard\n%s", topic, part, strings.Join(heard, "\n"))
		}
	}
}

func (c *client) connected(t *testing.T) {
	t.Helper()
	c.await("client", c.IsConnectionOpen)
}

const at = "$hw/events/device/default/d1/"

func TestClientsOfAnExistingBroker(t *testing.T) {
	e := newExisting(t)
	e.start()
	c := e.client("$hw/events/#")
	c.say(at+"twin/update", `{"event_id":"old","twin":{"speed":{"actual":{"value":"1"}}}}`, true) // retained: asked long ago
	n := newNode(t, e, Config{Credentials: e.file("login", "kedge secret-kedge\n"), QoS: 1})
	c.until(at+"twin/update/delta", `"delta":{"speed":"100"}`)
	if err := n.bridge.Publish("$hw/events/from/a/rule", []byte("hello")); err != nil {
		t.Error(err)
	}
	c.until("$hw/events/from/a/rule", "hello")
	for _, id := range []string{"default/d1", "d1"} {
		at := "$hw/events/device/" + id + "/"
		c.say(at+"twin/get", `{"event_id":"g"}`, false)
		c.until(at+"twin/get/result", `"event_id":"g"`)
		c.say(at+"twin/update", `{"event_id":"u","twin":{"speed":{"actual":{"value":"90"}}}}`, false)
		heard := c.until(at+"twin/update/document", `"event_id":"u"`)
		if got := strings.Count(strings.Join(heard, "\n"), at+"twin/update/result"); got != 1 {
			t.Errorf("%d answers:\n%s", got, strings.Join(heard, "\n"))
		}
		c.say(at+"state/update", `{"state":"ok"}`, false)
		c.until(at+"state/update/result", `"state":"ok"`)
		c.say(at+"twin/update", `{`, false)
		c.until(at+"twin/update/result", `"code":400`)
	}
	c.say("$hw/events/device/other/twin/get", `{"event_id":"somebody else's"}`, false)
	c.say("$hw/events/node/n1/membership/get", `{"event_id":"m"}`, false)
	heard := strings.Join(c.until("$hw/events/node/n1/membership/get/result", `"default/d1"`), "\n")
	if strings.Contains(heard, "device/other/twin/get/result") {
		t.Error("a question about a device of another node was answered")
	}
	// Nothing goes round: of what was said and answered, each is on the bus once.
	c.say("fence", "", false)
	for _, line := range c.drain() {
		t.Errorf("heard once more: %s", line)
	}
}

// drain returns what was heard already.
func (c *client) drain() (lines []string) {
	for {
		select {
		case m := <-c.heard:
			lines = append(lines, m.Topic())
		case <-time.After(300 * time.Millisecond):
			return lines
		}
	}
}

func TestExistingBrokerIsAway(t *testing.T) {
	e := newExisting(t)
	n := newNode(t, e, Config{Credentials: e.file("login", "kedge secret-kedge\n"), QoS: 1})
	if err := n.bridge.Publish("a", nil); !errors.Is(err, ErrAway) {
		t.Errorf("a message to a broker that is away: %v", err)
	}
	e.start() // later than the bridge
	c := e.client("$hw/events/device/default/#")
	c.until(at+"twin/update/delta", `"delta":{"speed":"100"}`)
	for round := range 2 {
		e.stop()
		for i := range 5 {
			n.device("d1", fmt.Sprint(200+100*round+i))
		}
		n.device("d2", fmt.Sprint(round))
		e.start()
		c.connected(t)
		want := fmt.Sprintf(`"delta":{"speed":"%d"}`, 204+100*round)
		heard := c.until(at+"twin/update/delta", want)
		for _, line := range heard[:len(heard)-1] {
			if strings.Contains(line, `"delta":{"speed":"20`) && round == 0 || strings.Contains(line, `"delta":{"speed":"30`) {
				t.Errorf("an old value was told: %s", line)
			}
		}
		c.say(at+"twin/get", fmt.Sprintf(`{"event_id":"round %d"}`, round), false)
		c.until(at+"twin/get/result", fmt.Sprintf("round %d", round))
	}
}

func TestQuestionsWhileTheBridgeIsAway(t *testing.T) {
	e := newExisting(t)
	e.start()
	login := e.file("login", "kedge secret-kedge\n")
	c := e.client("$hw/events/device/default/#")
	t.Run("first", func(t *testing.T) {
		newNode(t, e, Config{Credentials: login, QoS: 1})
		c.until(at+"twin/update/delta", `"speed"`)
	})
	c.say(at+"twin/update", `{"event_id":"meanwhile","twin":{"speed":{"actual":{"value":"77"}}}}`, false)
	n := newNode(t, e, Config{Credentials: login, QoS: 1})
	c.until(at+"twin/update/result", "meanwhile")
	if v, _ := n.hub.Get("default/d1"); v.State.Twins["speed"].Reported.Value != "77" {
		t.Errorf("%+v", v.State.Twins["speed"].Reported)
	}
}

func TestWrongLoginIsTriedAgain(t *testing.T) {
	e := newExisting(t)
	e.start()
	login := e.file("login", "kedge wrong\n")
	newNode(t, e, Config{Credentials: login, QoS: 2})
	c := e.client("$hw/events/device/default/#")
	e.file("login", "kedge secret-kedge\n") // mended while it runs
	c.until(at+"twin/update/delta", `"speed"`)
}

func TestBadAddresses(t *testing.T) {
	for _, broker := range []string{"", "here", "http://a:1", "tcp://a", "tcp://u:p@a:1", "tcp://a:1/x"} {
		if _, err := New(Config{Broker: broker}); err == nil {
			t.Errorf("%q was taken", broker)
		}
	}
	if _, err := New(Config{Broker: "tcp://a:1", QoS: 3}); err == nil {
		t.Error("QoS 3 was taken")
	}
}
