package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const patience = time.Minute

// town is a server as nodes see it.
type town struct {
	*httptest.Server
	mu    sync.Mutex
	plan  wire.Plan
	away  bool
	gone  bool
	most  int // messages that are taken of one batch
	got   []string
	lost  int64
	calls int
}

func newTown(t *testing.T) *town {
	w := &town{most: 1000}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(w.answer))
	t.Cleanup(w.Close)
	return w
}

func (w *town) set(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *town) messages() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

func (w *town) answer(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	switch {
	case w.away:
		http.Error(out, "away", http.StatusServiceUnavailable)
	case r.URL.Path == wire.PathPlan:
		if r.Header.Get(wire.HeaderPlan) == w.plan.Digest() {
			out.WriteHeader(http.StatusNotModified)
			return
		}
		_ = json.NewEncoder(out).Encode(w.plan)
	case w.gone:
		http.Error(out, "gone", http.StatusGone)
	case r.URL.Path == wire.PathCall:
		w.calls++
		out.Header().Set(wire.HeaderStatus, "200")
		fmt.Fprintf(out, "answer %d", w.calls)
	default:
		b, err := wire.ReadBatch(body)
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadRequest)
			return
		}
		o := wire.Outcome{Done: min(w.most, len(b.Messages))}
		for _, m := range b.Messages[:o.Done] {
			w.got = append(w.got, string(m.Body))
		}
		w.lost += b.Lost
		_ = json.NewEncoder(out).Encode(o)
	}
}

func (w *town) tls() (*tls.Config, error) {
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	return &tls.Config{RootCAs: roots}, nil
}

// machine is a node that can be switched off and on.
type machine struct {
	*testing.T
	cfg  Config
	edge *Edge
	stop func()
}

func newMachine(t *testing.T, w *town) *machine {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bus := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	m := &machine{T: t, cfg: Config{
		Dir: dir, Socket: filepath.Join(dir, "s"), Server: w.URL, TLS: w.tls, ServiceBus: bus, Log: slog.New(slog.DiscardHandler),
		Publish: func(topic string, payload []byte) error {
			if topic == "closed" {
				return errors.New("closed")
			}
			return nil
		},
	}}
	m.on()
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *machine) on() {
	m.Helper()
	var err error
	if m.edge, err = New(m.cfg); err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.edge.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			m.Error(err)
		}
	})
}

func (m *machine) await(what string, done func() bool) {
	m.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.Fatalf("waited in vain for %s", what)
		}
	}
}

func (m *machine) take(topic, body string) {
	m.Helper()
	if err := m.edge.Take(topic, []byte(body)); err != nil {
		m.Fatal(err)
	}
}

// server asks the node as a server does.
func (m *machine) server(method, path, body string) (int, string) {
	m.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.cfg.Socket)
	}}}
	r, err := http.NewRequest(method, "http://node"+path, strings.NewReader(body))
	if err != nil {
		m.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		m.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func TestMessagesWaitThroughARestart(t *testing.T) {
	w := newTown(t)
	w.plan = wire.Plan{Topics: []wire.Topic{{Rule: "default/r", Filter: "default/+/t"}}}
	m := newMachine(t, w)
	m.await("the plan", func() bool { return !m.edge.current().Empty() })
	w.set(func() { w.away = true })
	want := []string{}
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		m.take("default/x/t", want[i])
		m.take("default/x/other", "nobody wants this")
	}
	m.stop()
	m.on()
	if m.edge.current().Empty() {
		t.Error("the plan is forgotten")
	}
	m.take("default/y/t", "after")
	want = append(want, "after")
	w.set(func() { w.away, w.most = false, 3 })
	m.await("all messages", func() bool { return len(w.messages()) >= len(want) })
	if got := w.messages(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestTheServerIsTheMaster(t *testing.T) {
	w := newTown(t)
	m := newMachine(t, w)
	data, _ := json.Marshal(wire.Plan{Topics: []wire.Topic{{Rule: "default/r", Filter: "t"}}, Services: []wire.Service{{Rule: "default/s", TargetURL: "http://x"}}})
	m.await("the socket", func() bool {
		c, err := net.Dial("unix", m.cfg.Socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, r.Method, " ", r.URL)
	}))
	defer service.Close()
	_, port, _ := net.SplitHostPort(service.Listener.Addr().String())
	for _, tc := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"PUT", wire.NodePlan, string(data), http.StatusNoContent, ""},
		{"PUT", wire.NodePlan, "{", http.StatusBadRequest, "read plan"},
		{"POST", wire.NodePublish + "?topic=a", "x", http.StatusNoContent, ""},
		{"POST", wire.NodePublish + "?topic=closed", "x", http.StatusServiceUnavailable, "closed"},
		{"DELETE", wire.NodeService + port + "/a/b%20c?d=e", "", http.StatusTeapot, "DELETE /a/b%20c?d=e"},
		{"GET", wire.NodeService + "0/a", "", http.StatusBadRequest, "no port"},
		{"GET", wire.NodeService + "evil.example:80/a", "", http.StatusBadRequest, "no port"},
		{"GET", wire.NodeService + "1/a", "", http.StatusBadGateway, "the service at port 1"},
		{"GET", "/other", "", http.StatusNotFound, ""},
	} {
		if code, text := m.server(tc.method, tc.path, tc.body); code != tc.code || !strings.Contains(text, tc.text) {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, code, text)
		}
	}
	w.set(func() { w.gone = true })
	m.take("t", "x")
	m.await("messages of a rule that is gone", func() bool { return m.edge.queue.Waiting("default/r") == 0 })
	w.set(func() { w.gone = false })
	m.programs(w)
}

// programs asks the servicebus.
func (m *machine) programs(w *town) {
	m.Helper()
	ask := func(body string) (r wire.Reply) {
		resp, err := http.Post("http://"+m.cfg.ServiceBus, "application/json", bytes.NewBufferString(body))
		if err != nil {
			return wire.Reply{Msg: err.Error()}
		}
		defer func() { _ = resp.Body.Close() }()
		_ = json.NewDecoder(resp.Body).Decode(&r)
		return r
	}
	m.await("the servicebus", func() bool { return ask(`{`).Code == http.StatusBadRequest })
	if r := ask(`{"method":"POST","targetURL":"http://y"}`); r.Code != http.StatusBadRequest || !strings.Contains(r.Msg, "not allowed") {
		m.Errorf("%+v", r)
	}
	if r := ask(`{"method":"POST","targetURL":"http://x","payload":"p"}`); r.Code != http.StatusOK || r.Body != "answer 1" {
		m.Errorf("%+v", r)
	}
	w.set(func() { w.away = true })
	if r := ask(`{"method":"POST","targetURL":"http://x","payload":"later"}`); r.Code != http.StatusAccepted {
		m.Errorf("%+v", r)
	}
	if r := ask(`{"method":"POST","targetURL":"http://x","payload":"` + strings.Repeat("x", wire.MaxMessage) + `"}`); r.Code != http.StatusBadRequest {
		m.Errorf("%+v", r)
	}
	w.set(func() { w.away = false })
	m.await("what a program said", func() bool { return strings.Contains(strings.Join(w.messages(), " "), "later") })
	if code, _ := m.server("PUT", wire.NodePlan, "{}"); code != http.StatusNoContent {
		m.Error(code)
	}
	m.await("the end of the servicebus", func() bool { return strings.Contains(ask("{").Msg, "refused") })
}

func TestTooManyMessages(t *testing.T) {
	w := newTown(t)
	w.plan = wire.Plan{Topics: []wire.Topic{{Rule: "default/r", Filter: "t"}}}
	m := newMachine(t, w)
	m.await("the plan", func() bool { return !m.edge.current().Empty() })
	m.stop()
	m.cfg.Buffer = 3000
	w.set(func() { w.away = true })
	m.on()
	for i := range 100 {
		m.take("t", fmt.Sprint(i))
	}
	if err := m.edge.Take("t", make([]byte, wire.MaxMessage+1)); err == nil {
		t.Error("a message that is too large is taken")
	}
	w.set(func() { w.away = false })
	m.await("the last message", func() bool { return slices.Contains(w.messages(), "99") })
	w.mu.Lock()
	defer w.mu.Unlock()
	if int64(len(w.got))+w.lost != 100 || w.lost == 0 {
		t.Errorf("%d came and %d are said to be lost", len(w.got), w.lost)
	}
}

func FuzzServiceBus(f *testing.F) {
	for _, s := range []string{`{"method":"POST","targetURL":"http://x","payload":{"a":1}}`, `{"targetURL":""}`, `[]`, `{"targetURL":"http://x"}`} {
		f.Add(s, "/service/80/a")
	}
	e, err := New(Config{
		Dir: f.TempDir(), Socket: "s", Server: "https://127.0.0.1:1", TLS: func() (*tls.Config, error) { return nil, errors.New("none") },
		Publish: func(string, []byte) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, path string) {
		w := httptest.NewRecorder()
		e.answerProgram(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		var r wire.Reply
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || r.Code != http.StatusBadRequest {
			t.Fatalf("%s: %s", body, w.Body)
		}
		if !strings.HasPrefix(path, wire.NodePlan) {
			return
		}
		q := httptest.NewRequest(http.MethodPut, wire.NodePlan, strings.NewReader(body))
		e.handler().ServeHTTP(httptest.NewRecorder(), q)
		if err := e.setPlan(wire.Plan{}); err != nil {
			t.Fatal(err)
		}
	})
}
