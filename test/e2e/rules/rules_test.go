package rules

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// TestFourDirections walks all directions, cuts the link, reboots the node and looks for every message.
func TestFourDirections(t *testing.T) {
	s := newScene(t)
	password := s.node.Kedge("device", "bus-add", "app")
	bus := s.bus(strings.TrimSpace(password))
	sender := s.client(s.sender())

	s.restToBus(sender, bus)
	s.restToService(sender)
	s.busToRest(bus)
	s.serviceToRest()
	s.refusals(sender)

	want := s.cutOff(sender, bus, strings.TrimSpace(password))
	s.farm.Uplink().Heal()
	s.awaitHello(want)
	s.lab.Await("messages of programs", patience, func() error {
		if _, orders := s.sink.messages(); len(orders) != 4 || !strings.Contains(orders[2], "cut 1") || !strings.Contains(orders[3], "cut 2") {
			return fmt.Errorf("got %q", orders)
		}
		return nil
	})
	s.awaitAsk(sender, http.MethodPost, "edge-node-1/default/source", "", http.StatusBadGateway, "6660") // the program went with the reboot
	s.counts(len(want))
	t.Logf("%d messages came more than once", s.sink.again)
}

// sender is the token of somebody who may send through rules.
func (s *scene) sender() string {
	s.Helper()
	for _, name := range []string{"app", "other"} {
		s.server.Kubectl("create", "serviceaccount", name)
	}
	s.server.Kubectl("create", "rolebinding", "app-sends", "--clusterrole=kedge:rules-send", "--serviceaccount=default:app")
	return s.server.Kubectl("create", "token", "app")
}

func (s *scene) restToBus(sender *http.Client, bus paho.Client) {
	s.Helper()
	heard := make(chan string, 10)
	if token := bus.Subscribe("test/#", 1, func(_ paho.Client, m paho.Message) { heard <- m.Topic() + " " + string(m.Payload()) }); !token.WaitTimeout(patience) || token.Error() != nil {
		s.Fatal(token.Error())
	}
	existing := make(chan string, 10)
	other := s.connect("1884", "")
	if token := other.Subscribe("test", 1, func(_ paho.Client, m paho.Message) { existing <- string(m.Payload()) }); !token.WaitTimeout(patience) || token.Error() != nil {
		s.Fatal(token.Error())
	}
	s.awaitAsk(sender, http.MethodPost, "edge-node-1/default/a", `{"n":1}`, http.StatusOK, "message delivered")
	if got := <-heard; got != `test {"n":1}` {
		s.Errorf("heard %s", got)
	}
	if got := <-existing; got != `{"n":1}` {
		s.Errorf("heard %s on the existing broker", got)
	}
	s.awaitAsk(sender, http.MethodPost, "edge-node-1/default/a/deep/er", "x", http.StatusOK, "message delivered")
	if got := <-heard; got != "test/deep/er x" {
		s.Errorf("heard %s", got)
	}
	anybody := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.server.Dial}}
	resp, err := anybody.Post("http://"+s.server.IP()+":9443/edge-node-1/default/a/anybody", "text/plain", strings.NewReader("x"))
	if err != nil {
		s.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := <-heard; resp.StatusCode != http.StatusOK || got != "test/anybody x" {
		s.Errorf("%s, heard %s", resp.Status, got)
	}
	// The server's own node, which has no device either.
	s.server.Kedge("device", "bus-add", "app")
	s.awaitAsk(sender, http.MethodPost, "s1/default/a", "x", http.StatusOK, "message delivered")
}

func (s *scene) restToService(sender *http.Client) {
	s.Helper()
	s.node.Serve("127.0.0.1:6660", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Service", "yes")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s auth=%q", r.Method, r.URL, body, r.Header.Get("Authorization"))
	}))
	s.awaitAsk(sender, http.MethodPut, "edge-node-1/default/source/x?y=1", "body", http.StatusCreated, `PUT /target/x?y=1 body auth=""`)
	if _, header, _ := s.ask(sender, http.MethodGet, "edge-node-1/default/source", ""); header.Get("X-Service") != "yes" {
		s.Errorf("headers of the service: %v", header)
	}
}

func (s *scene) busToRest(bus paho.Client) {
	s.Helper()
	s.publish(bus, "default/other", "nobody wants this")
	s.publish(bus, "default/test", "m0")
	s.awaitHello([]string{"m0"})
	other := s.connect("1884", "")
	s.publish(other, "default/other", "nobody wants this")
	s.publish(other, "default/test", "m1")
	s.awaitHello([]string{"m0", "m1"})
}

func (s *scene) serviceToRest() {
	s.Helper()
	for i, first := range []bool{true, false} {
		s.lab.Await("the servicebus", patience, func() error {
			code, text, err := s.program("http://shop.example/orders", fmt.Sprintf("order %d", i))
			if err != nil || code != http.StatusOK || !strings.Contains(text, fmt.Sprintf("order %d", i)) || !strings.Contains(text, "answer to") {
				return fmt.Errorf("first %t: %d %s %w", first, code, text, err)
			}
			return nil
		})
	}
	if code, text, err := s.program("http://elsewhere.example/", "x"); err != nil || code != http.StatusBadRequest || !strings.Contains(text, "not allowed") {
		s.Errorf("a target without a rule: %d %s %v", code, text, err)
	}
}

// refusals asks for what must not be had.
func (s *scene) refusals(sender *http.Client) {
	s.Helper()
	other := s.client(s.server.Kubectl("create", "token", "other"))
	for _, tc := range []struct {
		client *http.Client
		path   string
		code   int
	}{
		{s.client(""), "edge-node-1/default/a", http.StatusUnauthorized},
		{s.client("wrong"), "edge-node-1/default/a", http.StatusUnauthorized},
		{other, "edge-node-1/default/a", http.StatusForbidden},
		{sender, "edge-node-1/kube-system/a", http.StatusNotFound},
		{sender, "edge-node-1/default/b", http.StatusNotFound},
		{sender, "edge-node-1/default/a/%23", http.StatusBadRequest},
		{sender, "nowhere/default/a", http.StatusServiceUnavailable},
	} {
		if code, _, text := s.ask(tc.client, http.MethodPost, tc.path, "x"); code != tc.code {
			s.Errorf("POST %s: %d %s, want %d", tc.path, code, text, tc.code)
		}
	}
	for patch, reason := range map[string]string{
		`{"spec":{"targetResource":{"resource":"ftp://x"}}}`:  "spec.targetResource[resource]",
		`{"spec":{"sourceResource":{"topic":"a/#/b"}}}`:       "spec.sourceResource[topic]",
		`{"spec":{"sourceResource":{"node_name":"No Node"}}}`: "spec.sourceResource[node_name]",
		`{"spec":{"source":"my-rest"}}`:                       "not from rest to rest",
	} {
		out, err := s.server.TryKubectl("patch", "rule", "my-rule-eventbus-rest", "--type=merge", "-p", patch)
		if err == nil || !strings.Contains(err.Error(), reason) {
			s.Errorf("%s: %s %v, want %s", patch, out, err, reason)
		}
	}
	// With a node's key nobody speaks for it through the API, nor reads where messages go.
	if _, err := s.node.TryKubectl("--kubeconfig", "/var/lib/kedge/agent/kedgecontroller.kubeconfig", "get", "rules"); err == nil {
		s.Error("a node can read all rules")
	}
}

// cutOff cuts the link, makes messages, reboots, makes more, and returns what must come.
func (s *scene) cutOff(sender *http.Client, bus paho.Client, password string) []string {
	s.Helper()
	s.farm.Uplink().Cut()
	want := []string{"m0", "m1"}
	say := func(bus paho.Client, count int) {
		for range count {
			text := fmt.Sprintf("m%d", len(want))
			s.publish(bus, "default/test", text)
			want = append(want, text)
		}
	}
	say(bus, 30)
	if code, text, err := s.program("http://shop.example/orders", "cut 1"); err != nil || code != http.StatusAccepted {
		s.Errorf("a program while the link is cut: %d %s %v", code, text, err)
	}
	if code, _, text := s.ask(sender, http.MethodPost, "edge-node-1/default/a", "x"); code != http.StatusServiceUnavailable && code != http.StatusGatewayTimeout {
		s.Errorf("a request while the link is cut: %d %s", code, text)
	}
	s.node.Reboot()
	s.node.Start()
	again := s.bus(password)
	say(again, 10)
	s.lab.Await("the servicebus", patience, func() error {
		code, text, err := s.program("http://shop.example/orders", "cut 2")
		if err == nil && code != http.StatusAccepted {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	return want
}

// counts looks at the status of rules.
func (s *scene) counts(messages int) {
	s.Helper()
	for rule, want := range map[string]int{"my-rule-eventbus-rest": messages, "my-rule-servicebus-rest": 4, "my-rule-rest-eventbus": 2} {
		s.lab.Await("the status of "+rule, patience, func() error {
			got := s.server.Kubectl("get", "rule", rule, "-o", "jsonpath={.status.successMessages}")
			n := 0
			if _, err := fmt.Sscan(got, &n); err != nil || n < want {
				return fmt.Errorf("%q of %d", got, want)
			}
			return nil
		})
	}
}
