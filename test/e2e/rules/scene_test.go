package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/test/lab"
)

// patience bounds what happens within seconds on a quiet machine.
const patience = 2 * time.Minute

// scene is a server in town, an agent far away, a program in town that takes messages, and one on the agent's machine that answers requests. A
// broker that is there already runs on that machine too, until it is rebooted.
type scene struct {
	*testing.T
	lab    *lab.Lab
	farm   *lab.Site
	server *lab.Node
	node   *lab.Node
	sink   *sink
}

func newScene(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l}
	s.server = l.AddSite("town").AddNode("s1", lab.Server("--rules-listen", "0.0.0.0:9443"))
	s.server.Start()
	s.server.AwaitReady()
	s.farm = l.AddSiteBehindNAT("farm")
	s.node = s.farm.AddAgent("edge-node-1", s.server, "--mqtt-external", "tcp://127.0.0.1:1884")
	s.node.Exec("mosquitto", "-d", "-p", "1884")
	s.node.Start()
	s.server.AwaitNodes("edge-node-1")
	l.Await("the kinds of rules", patience, func() error {
		_, err := s.server.TryKubectl("get", "rules,ruleendpoints")
		return err
	})
	s.sink = s.newSink()
	s.server.Apply(s.fixture("rules.yaml"))
	return s
}

func (s *scene) fixture(name string) string {
	s.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		s.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "%SERVER", s.server.IP())
}

// sink is the program in town.
type sink struct {
	mu     sync.Mutex
	hello  []string // bodies in the order in which they came for the first time, by id
	orders []string
	ids    map[string]bool
	again  int
}

func (s *scene) newSink() *sink {
	k := &sink{ids: map[string]bool{}}
	s.server.Serve(s.server.IP()+":8088", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id := r.Header.Get("X-Kedge-Message-Id")
		k.mu.Lock()
		defer k.mu.Unlock()
		if r.Header.Get("X-Kedge-Node") != "edge-node-1" || id == "" {
			http.Error(w, "from nowhere", http.StatusBadRequest)
			return
		}
		if k.ids[id] {
			k.again++
			return
		}
		k.ids[id] = true
		if r.URL.Path == "/hello" {
			k.hello = append(k.hello, string(body))
		} else {
			k.orders = append(k.orders, string(body))
		}
		fmt.Fprintf(w, "answer to %s", body)
	}))
	return k
}

func (k *sink) messages() (hello, orders []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.hello), slices.Clone(k.orders)
}

// awaitHello waits until exactly these messages have come, in this order.
func (s *scene) awaitHello(want []string) {
	s.Helper()
	s.lab.Await("messages in town", patience, func() error {
		if got, _ := s.sink.messages(); !slices.Equal(got, want) {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
}

// bus connects to the message bus of the node.
func (s *scene) bus(password string) paho.Client {
	s.Helper()
	return s.connect("1883", password)
}

// connect connects to a broker on the node.
func (s *scene) connect(port, password string) paho.Client {
	s.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://127.0.0.1:" + port).SetClientID("app").SetUsername("app").SetPassword(password).
		SetAutoReconnect(false).SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return s.node.Dial(ctx, "tcp", "127.0.0.1:"+port)
	})
	var c paho.Client
	s.lab.Await("the message bus", patience, func() error {
		c = paho.NewClient(o)
		t := c.Connect()
		if !t.WaitTimeout(10 * time.Second) {
			return errors.New("no answer")
		}
		return t.Error()
	})
	s.Cleanup(func() { c.Disconnect(100) })
	return c
}

func (s *scene) publish(c paho.Client, topic, body string) {
	s.Helper()
	t := c.Publish(topic, 1, false, body)
	if !t.WaitTimeout(patience) || t.Error() != nil {
		s.Fatalf("publish %s: %v", body, t.Error())
	}
}

// client reaches the server's port with a token, or with none.
func (s *scene) client(token string) *http.Client {
	s.Helper()
	admin, err := s.server.RESTConfig()
	if err != nil {
		s.Fatal(err)
	}
	cfg := &rest.Config{Host: admin.Host, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData}, Dial: s.server.Dial, BearerToken: token}
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

// ask makes a request for a node at the server.
func (s *scene) ask(c *http.Client, method, path, body string) (code int, header http.Header, answer string) {
	s.Helper()
	r, err := http.NewRequest(method, "https://127.0.0.1:6443/rules/"+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, strings.TrimSpace(string(data))
}

// awaitAsk repeats a request until it is answered so.
func (s *scene) awaitAsk(c *http.Client, method, path, body string, code int, contains string) {
	s.Helper()
	s.lab.Await(method+" "+path, patience, func() error {
		if got, _, text := s.ask(c, method, path, body); got != code || !strings.Contains(text, contains) {
			return fmt.Errorf("%d %s", got, text)
		}
		return nil
	})
}

// program is what a program on the node hears from the servicebus.
func (s *scene) program(targetURL, payload string) (code int, body string, err error) {
	s.Helper()
	question, err := json.Marshal(map[string]string{"method": "POST", "targetURL": targetURL, "payload": payload})
	if err != nil {
		return 0, "", err
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.node.Dial}}
	resp, err := c.Post("http://127.0.0.1:9060/", "application/json", bytes.NewReader(question))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var reply struct {
		Code      int
		Msg, Body string
	}
	err = json.NewDecoder(resp.Body).Decode(&reply)
	return reply.Code, reply.Msg + ": " + reply.Body, err
}
