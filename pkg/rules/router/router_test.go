package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/authentication/user"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

// target is a program elsewhere, that answers with the codes it is given.
type target struct {
	*httptest.Server
	mu    sync.Mutex
	codes []int
	got   []string
}

func newTarget(t *testing.T, codes ...int) *target {
	w := &target{codes: codes}
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		code := http.StatusOK
		if len(w.codes) > 0 {
			code, w.codes = w.codes[0], w.codes[1:]
		}
		w.got = append(w.got, fmt.Sprintf("%s %s %s %s %s", r.Header.Get(wire.HeaderRule), r.Header.Get(wire.HeaderNode), r.Header.Get(wire.HeaderID), r.Header.Get("Content-Type"), body))
		out.WriteHeader(code)
		fmt.Fprint(out, "said ", len(w.got))
	}))
	t.Cleanup(w.Close)
	return w
}

// newRouter is a router that knows its rules; bus is the node n1, where the service at port 8080 answers all requests.
func newRouter(t *testing.T, url string) *Router {
	t.Helper()
	r := &Router{
		status: newCounter(nil, slog.New(slog.DiscardHandler)), targets: &http.Client{}, slots: make(chan struct{}, maxRequests), senders: make(chan struct{}, 1),
		plans: map[string]wire.Plan{}, known: map[string]string{}, news: make(chan struct{}, 1), reviews: reviewer{verdicts: map[string]verdict{}},
	}
	r.cfg = Config{Log: slog.New(slog.DiscardHandler), Identify: func(q *http.Request) (string, error) {
		if node := q.Header.Get("Test-Node"); node != "" {
			return node, nil
		}
		return "", errors.New("no certificate")
	}, Authenticate: func(q *http.Request) (user.Info, error) {
		if name := q.Header.Get("Test-User"); name != "" {
			return &user.DefaultInfo{Name: name}, nil
		}
		return nil, errors.New("nobody")
	}}
	r.reviews.create = func(_ context.Context, review *authorizationv1.SubjectAccessReview) (bool, error) {
		a := review.Spec.ResourceAttributes
		return review.Spec.User == "app" && a.Verb == "create" && a.Resource == "rules" && a.Subresource == "messages" && a.Namespace == "default", nil
	}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == wire.NodePublish && q.URL.Query().Get("topic") == "full" {
			http.Error(w, "no client was added", http.StatusServiceUnavailable)
			return
		}
		if q.URL.Path == wire.NodePublish || q.URL.Path == wire.NodePlan {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		fmt.Fprintf(w, "%s %s %q", q.Method, q.URL, q.Header.Get("Authorization"))
	}))
	t.Cleanup(node.Close)
	r.cfg.Dial = func(ctx context.Context, name string) (net.Conn, error) {
		if name != "n1" {
			return nil, errors.New("node " + name + " is not connected")
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", node.Listener.Addr().String())
	}
	r.nodes = r.newNodes()
	t.Cleanup(r.nodes.CloseIdleConnections)
	end := func(name, kind string) *v1.RuleEndpoint {
		return &v1.RuleEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.RuleEndpointSpec{RuleEndpointType: kind, Properties: map[string]string{"service_port": "8080"}}}
	}
	rule := func(name, from, to string, source, goal map[string]string) *v1.Rule {
		return &v1.Rule{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.RuleSpec{Source: from, SourceResource: source, Target: to, TargetResource: goal}}
	}
	type m = map[string]string
	r.compile([]*v1.RuleEndpoint{end("rest", "rest"), end("bus", "eventbus"), end("service", "servicebus")}, []*v1.Rule{
		rule("up", "bus", "rest", m{"topic": "t", "node_name": "n1"}, m{"resource": url}), rule("ask", "service", "rest", m{"target_url": "http://x", "node_name": "n1"}, m{"resource": url}),
		rule("down", "rest", "bus", m{"path": "a"}, m{"topic": "a"}), rule("full", "rest", "bus", m{"path": "full"}, m{"topic": "full"}),
		rule("call", "rest", "service", m{"path": "s"}, m{"path": "/x"}), rule("broken", "rest", "nothing", m{"path": "z"}, m{}),
	}, nil)
	return r
}

func ask(r *Router, method, path, body string, headers ...string) (int, string) {
	q := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestWhoMayDoWhat(t *testing.T) {
	goal := newTarget(t)
	r := newRouter(t, goal.URL)
	app, node, other := []string{"Test-User", "app", "Authorization", "Bearer x"}, []string{"Test-Node", "n1"}, []string{"Test-Node", "n2"}
	batch := `{"rule":"default/up","messages":[{"id":"1","topic":"default/t","time":5,"body":"e30="}]}`
	for _, tc := range []struct {
		method, path, body string
		headers            []string
		code               int
		text               string
	}{
		{"POST", "/rules/n1/default/a/b", "x", nil, http.StatusUnauthorized, "token"},
		{"POST", "/rules/n1/default/a/b", "x", []string{"Test-User", "eve"}, http.StatusForbidden, "eve may not send through rule default/down"},
		{"POST", "/rules/n1/default/a/b", "x", app, http.StatusOK, "message delivered"},
		{"GET", "/rules/n1/default/a/b", "", app, http.StatusMethodNotAllowed, "POST"},
		{"POST", "/rules/n1/default/a/+", "x", app, http.StatusBadRequest, "topic"},
		{"POST", "/rules/n1/default/a/b", strings.Repeat("x", wire.MaxMessage+1), app, http.StatusRequestEntityTooLarge, "too large"},
		{"POST", "/rules/n1/default/full", "x", app, http.StatusServiceUnavailable, "no client was added"},
		{"POST", "/rules/n2/default/a", "x", app, http.StatusServiceUnavailable, "node n2 is not connected"},
		{"POST", "/rules/N_1/default/a", "x", app, http.StatusNotFound, "path"},
		{"POST", "/rules/n1/default/z", "x", app, http.StatusNotFound, "no rule"},
		{"PATCH", "/rules/n1/default/s/y?q=1", "x", app, http.StatusOK, `PATCH /service/8080/x/y?q=1 ""`},
		{"GET", "/rules/n1/default/s", "", append([]string{"Upgrade", "websocket", "Connection", "upgrade"}, app...), http.StatusNotImplemented, "protocol"},
		{"GET", wire.PathPlan, "", nil, http.StatusUnauthorized, "nodes"},
		{"GET", wire.PathPlan, "", node, http.StatusOK, `{"topics":[{"rule":"default/up","filter":"default/t"}],"services":[{"rule":"default/ask","targetURL":"http://x"}]}`},
		{"GET", wire.PathPlan, "", other, http.StatusOK, "{}"},
		{"POST", wire.PathMessages, batch, other, http.StatusGone, "no rule"},
		{"POST", wire.PathMessages, strings.Replace(batch, "/up", "/down", 1), node, http.StatusGone, "no rule"},
		{"POST", wire.PathMessages, "{", node, http.StatusBadRequest, "read messages"},
		{"POST", wire.PathMessages, batch, node, http.StatusOK, `{"done":1}`},
		{"POST", wire.PathCall + "?rule=default/ask", "hello", node, http.StatusOK, "said 2"},
		{"POST", wire.PathCall + "?rule=default/ask", "hello", other, http.StatusGone, "no rule"},
		{"DELETE", wire.PathMessages, "", node, http.StatusMethodNotAllowed, ""},
		{"GET", wire.Prefix + "x", "", node, http.StatusNotFound, ""},
	} {
		if code, text := ask(r, tc.method, tc.path, tc.body, tc.headers...); code != tc.code || !strings.Contains(text, tc.text) {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, code, text, tc.code, tc.text)
		}
	}
	if want := []string{"default/up n1 1 application/json {}", "default/ask n1  application/octet-stream hello"}; !slices.Equal(goal.got, want) {
		t.Errorf("the target got %q", goal.got)
	}
	if c := r.status.counts["default/down"]; c.success != 1 || c.fail != 1 {
		t.Errorf("%+v", c)
	}
	if c := r.status.counts["default/broken"]; len(c.errors) != 1 || !strings.Contains(c.errors[0], "RuleEndpoint nothing") {
		t.Errorf("%+v", c)
	}
}

func TestWhatBecomesOfMessages(t *testing.T) {
	goal := newTarget(t, 200, 404, 503, 200, 500, 500)
	r := newRouter(t, goal.URL)
	three := `"messages":[{"id":"1"},{"id":"2"},{"id":"3"}]`
	send := func(rest string) string {
		_, text := ask(r, "POST", wire.PathMessages, `{"rule":"default/up",`+rest+`}`, "Test-Node", "n1")
		return text
	}
	if got := send(three); !strings.Contains(got, `"done":2`) || !strings.Contains(got, "503") {
		t.Error(got)
	}
	if got := send(`"messages":[{"id":"3"}],"lost":4`); got != `{"done":1}` {
		t.Error(got)
	}
	if got := send(`"messages":[{"id":"4"}]`); !strings.Contains(got, `"done":0`) {
		t.Error(got)
	}
	if got := send(fmt.Sprintf(`"messages":[{"id":"4"}],"attempts":%d`, maxAttempts)); got != `{"done":1}` {
		t.Error(got)
	}
	goal.Close()
	if got := send(`"messages":[{"id":"5"}]`); !strings.Contains(got, `"done":0`) || strings.Contains(got, goal.URL) {
		t.Error(got)
	}
	if c := r.status.counts["default/up"]; c.success != 2 || c.fail != 6 || len(c.errors) != maxErrors {
		t.Errorf("%+v", c)
	}
}

func TestTargetsAreOutside(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false, "169.254.169.254:80": false, "0.0.0.0:80": false, "[fe80::1%eth0]:80": false,
		"224.0.0.1:80": false, "10.0.0.1:80": true, "[2001:db8::1]:443": true,
	} {
		if err := outside("tcp", address, nil); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	r := newRouter(t, newTarget(t).URL)
	r.targets = newTargets()
	if code, text := ask(r, "POST", wire.PathCall+"?rule=default/ask", "x", "Test-Node", "n1"); code != http.StatusGone || !strings.Contains(text, "do not reach") {
		t.Errorf("%d %s", code, text)
	}
}

func TestNodesAreToldWhatChanged(t *testing.T) {
	r := newRouter(t, "http://10.0.0.1/")
	if !r.tellAll(t.Context()) || r.known["n1"] != r.planOf("n1").Digest() {
		t.Errorf("%+v", r.known)
	}
	r.compile(nil, nil, nil)
	if !r.tellAll(t.Context()) || len(r.known) != 0 {
		t.Errorf("%+v", r.known)
	}
	r.plans["n2"] = wire.Plan{Topics: []wire.Topic{{Rule: "a/b", Filter: "c"}}}
	if r.tellAll(t.Context()) {
		t.Error("a node that is away was told")
	}
}

func TestCountsAreAdded(t *testing.T) {
	live := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"successMessages": int64(5), "errors": []any{"a", "b", "c", "d", "e"}}}}
	addTo(live, count{success: 2, fail: 1, errors: []string{"f"}})
	if got := fmt.Sprint(live.Object["status"]); got != "map[errors:[b c d e f] failMessages:1 successMessages:7]" {
		t.Error(got)
	}
	c := newCounter(nil, nil)
	for range 100 {
		c.add("a/b", 0, 1, strings.Repeat("é", 1000))
	}
	if n := c.counts["a/b"]; n.fail != 100 || len(n.errors) != 1 || len(n.errors[0]) > maxError+50 {
		t.Errorf("%+v", n)
	}
	c.putBack("a/b", &count{success: 1, errors: []string{"x"}})
	if n := c.counts["a/b"]; n.success != 1 || n.errors[0] != "x" {
		t.Errorf("%+v", n)
	}
}

func TestVerdictsAreRemembered(t *testing.T) {
	asked := 0
	v := reviewer{verdicts: map[string]verdict{}, create: func(context.Context, *authorizationv1.SubjectAccessReview) (bool, error) {
		asked++
		return true, nil
	}}
	for range 3 {
		if ok, err := v.may(t.Context(), &user.DefaultInfo{Name: "a"}, "n", "r"); !ok || err != nil {
			t.Error(ok, err)
		}
	}
	for key := range v.verdicts {
		v.verdicts[key] = verdict{true, time.Now()}
	}
	_, _ = v.may(t.Context(), &user.DefaultInfo{Name: "a"}, "n", "r")
	_, _ = v.may(t.Context(), &user.DefaultInfo{Name: "a", Groups: []string{"g"}}, "n", "r")
	if asked != 3 {
		t.Errorf("the API was asked %d times", asked)
	}
}
