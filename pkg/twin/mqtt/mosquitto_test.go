package mqtt

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool runs one of Debian's mosquitto clients against the site; it returns all that the tool wrote.
func (s *site) tool(name string, args ...string) (string, error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, s.toolArgs(args)...).CombinedOutput()
	return string(out), err
}

func (s *site) toolArgs(args []string) []string {
	host, port, _ := net.SplitHostPort(s.address)
	return append([]string{"-h", host, "-p", port}, args...)
}

// needTools skips where the clients are not installed.
func needTools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"mosquitto_sub", "mosquitto_pub"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("mosquitto-clients is not installed: scripts/install-test-deps.sh installs it")
		}
	}
}

// ear is mosquitto_sub, subscribed.
type ear struct {
	*testing.T
	lines chan string
}

func (s *site) listen(filter string, args ...string) *ear {
	s.Helper()
	// -d tells of the subscription; a message is a line with its topic, a space and its payload.
	cmd := exec.CommandContext(s.Context(), "stdbuf", append([]string{"-oL", "mosquitto_sub"}, s.toolArgs(append([]string{"-d", "-F", "%t %p", "-t", filter}, args...))...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.Fatal(err)
	}
	e := &ear{s.T, make(chan string, 1000)}
	go func() {
		defer close(e.lines)
		for in := bufio.NewReaderSize(out, 1<<20); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				_ = cmd.Wait()
				return
			}
			e.lines <- line
		}
	}()
	s.Cleanup(func() { _ = cmd.Process.Kill() })
	e.await("Subscribed")
	return e
}

// await returns the first line that begins with a text.
func (e *ear) await(begin string) string {
	e.Helper()
	for late := time.After(patience); ; {
		select {
		case line, ok := <-e.lines:
			if !ok {
				e.Fatalf("mosquitto_sub ended before %s", begin)
			}
			if strings.HasPrefix(line, begin) {
				return line
			}
		case <-late:
			e.Fatalf("nothing on %s", begin)
		}
	}
}

// exchange is a message and the answers to it: topics behind that of the device, and a part of each.
type exchange struct {
	verb, payload string
	answers       [][2]string
}

func good() []exchange {
	return []exchange{
		{"twin/get", `{"event_id":"e1"}`, [][2]string{{"twin/get/result", `"event_id":"e1"`}}},
		{"twin/get", ``, [][2]string{{"twin/get/result", `"speed":{"expected":{"value":"100"`}}},
		{"twin/update", `{"event_id":"e2","twin":{"speed":{"actual":{"value":"90","metadata":{"timestamp":5}}}}}`, [][2]string{
			{"twin/update/result", `"value":"90"`}, {"twin/update/delta", `"delta":{"speed":"100"}`}, {"twin/update/document", `"current":{`},
		}},
		{"twin/update", `{"twin":{"speed":{"actual":{"value":"100"}},"mine":{"actual":{"value":"{\"json\": \"ü\"}"},"optional":true,"metadata":{"type":"string"}}}}`,
			[][2]string{{"twin/update/result", `"mine"`}, {"twin/update/document", `"mine":{"last":null`}}},
		{"twin/update", `{"twin":{"mine":null}}`, [][2]string{{"twin/update/result", `"event_id":""`}, {"twin/update/document", `"current":null`}}},
		{"state/update", `{"event_id":"e3","state":"Online"}`, [][2]string{{"state/update/result", `"state":"online"`}}},
	}
}

func bad() []exchange {
	out := []exchange{
		{"twin/get", `nonsense`, [][2]string{{"twin/get/result", `"code":400`}}},
		{"state/update", `{"state":"asleep"}`, [][2]string{{"state/update/result", `"code":400`}}},
	}
	for payload, want := range map[string]string{
		`{`: `"code":400`, `[]`: `"code":400`, `{"twin":{}}`: `"code":400`, "\xff\xfe": `"code":400`,
		`{"twin":{"speed":{"actual":{"value":"fast"}}}}`:                                    "is not a whole number",
		`{"twin":{"speed":{"expected":{"value":"1001"}}}}`:                                  "above the maximum 1000",
		`{"twin":{"heat":{"expected":{"value":"1"}}}}`:                                      "ReadOnly",
		`{"twin":{"speed":null}}`:                                                           "in the specification",
		`{"twin":{"x":{"metadata":{"type":"float64"}}}}`:                                    "none of",
		`{"twin":{"speed":{"actual":{"value":"1"},"actual_version":{"cloud":0,"edge":0}}}}`: `"code":409`,
	} {
		out = append(out, exchange{"twin/update", payload, [][2]string{{"twin/update/result", want}}})
	}
	return out
}

func TestMosquittoClientsWalkTheTable(t *testing.T) {
	needTools(t)
	s := newSite(t)
	s.join("warm") // the bus is open
	password, err := s.file.Add("tools", nil)
	if err != nil {
		t.Fatal(err)
	}
	login := []string{"-u", "tools", "-P", password}
	say := func(topic, payload string) {
		t.Helper()
		if out, err := s.tool("mosquitto_pub", append(login, "-t", topic, "-m", payload)...); err != nil {
			t.Errorf("publish to %s: %v: %s", topic, err, out)
		}
	}
	for _, id := range []string{"default/d1", "d1"} {
		at := "$hw/events/device/" + id + "/"
		e := s.listen(at+"#", login...)
		for _, x := range append(good(), bad()...) {
			say(at+x.verb, x.payload)
			for _, a := range x.answers {
				if line := e.await(at + a[0] + " "); !strings.Contains(line, a[1]) {
					t.Errorf("%s %s is answered with %s", x.verb, x.payload, line)
				}
			}
		}
	}
	node := s.listen("$hw/events/node/n1/membership/#", login...)
	say("$hw/events/node/n1/membership/get", `{"event_id":"m"}`)
	if line := node.await("$hw/events/node/n1/membership/get/result "); !strings.Contains(line, `"devices":[{"id":"default/d1"`) {
		t.Error(line)
	}
	s.device("d2", "1")
	if line := node.await("$hw/events/node/n1/membership/updated "); !strings.Contains(line, `"added_devices":[{"id":"default/d2"`) {
		t.Error(line)
	}
	s.toolsAreRefused(login)
}

// toolsAreRefused tries what must not work.
func (s *site) toolsAreRefused(login []string) {
	s.Helper()
	for _, wrong := range [][]string{nil, {"-u", "tools"}, {"-u", "tools", "-P", "x"}, {"-u", "none", "-P", "x"}} {
		if out, err := s.tool("mosquitto_pub", append(wrong, "-t", "a", "-m", "b")...); err == nil || !strings.Contains(out, "Connection Refused") {
			s.Errorf("%q: %v: %s", wrong, err, out)
		}
	}
	if out, err := s.tool("mosquitto_pub", append(login, "-q", "1", "-t", "$hw/events/device/+/twin/update", "-m", "{}")...); err == nil {
		s.Errorf("published to a wildcard: %s", out)
	}
	big := filepath.Join(s.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		s.Fatal(err)
	}
	if out, err := s.tool("mosquitto_pub", append(login, "-q", "1", "-t", "$hw/events/device/d1/twin/update", "-f", big)...); err == nil {
		s.Errorf("a payload of 1 MiB was taken: %s", out)
	}
	if out, err := s.tool("mosquitto_pub", append(login, "-q", "1", "-t", "$hw/events/device/d1/twin/update/delta", "-m", "{}")...); err == nil {
		s.Errorf("published in the node's place: %s", out)
	}
}
