package join_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/join"
)

func TestWrongToken(t *testing.T) {
	s := newSite(t)
	hash, _, _ := strings.Cut(s.token("agent-token"), "::")
	for _, token := range []string{"wrong", hash + "::node:wrong", hash + "::server:" + agentSecret(s)} {
		wantIn(t, s.machine("a", token).refused(), s.listen.URL+" refuses the token", "agent-token")
	}
	wantIn(t, s.machine("a", "").refused(), "wants a token", "--token")
}

func agentSecret(s *site) string {
	token := s.token("agent-token")
	return token[strings.LastIndex(token, ":")+1:]
}

func TestWrongCAHash(t *testing.T) {
	s, other := newSite(t), newSite(t)
	line := s.machine("a", other.token("agent-token")).refused()
	wantIn(t, line, s.listen.URL+" is not the one of the token", join.HashCA(s.ca), join.HashCA(other.ca))
	if s.sawToken.Load() {
		t.Error("the token was sent to a server that it does not name")
	}
}

func TestExpiredToken(t *testing.T) {
	s := newSite(t)
	boot, err := s.bootstrap().Create(context.Background(), time.Minute, "")
	if err != nil {
		t.Fatal(err)
	}
	s.clock.advance(2 * time.Minute)
	token := boot.ID + "." + boot.Secret
	wantIn(t, s.machine("a", token).refused(), "bootstrap token "+boot.ID+" has expired", "kedge token create")
	if err := s.bootstrap().Delete(context.Background(), boot.ID); err != nil {
		t.Fatal(err)
	}
	wantIn(t, s.machine("a", token).refused(), "does not know bootstrap token "+boot.ID, "kedge token create")
}

func TestClockOffByYears(t *testing.T) {
	for _, years := range []time.Duration{-10, 10} {
		s := newSite(t)
		m := s.machine("a", s.token("agent-token"))
		wrong := func() time.Time { return time.Now().Add(years * 365 * 24 * time.Hour) }
		m.cfg.Clock = wrong
		line := m.waits()
		wantIn(t, line, "the clock of this machine says "+wrong().UTC().Format("2006-01"), "says "+time.Now().UTC().Format("2006-01"),
			"set the clock that is wrong")
		if s.sawToken.Load() {
			t.Error("the token was sent to a server that could not prove itself")
		}
	}
}

func TestServerUnreachable(t *testing.T) {
	s := newSite(t)
	s.listen.Close()
	wantIn(t, s.machine("a", s.token("agent-token")).waits(), "nothing listens at "+s.listen.URL, "--server")
	m := s.machine("a", s.token("agent-token"))
	m.cfg.Servers = func() []string { return []string{"https://no-such-host.invalid:6443"} }
	wantIn(t, m.waits(), "the name of the server at https://no-such-host.invalid:6443 is not known", "DNS")
}

func TestProxyInBetween(t *testing.T) {
	s, opener := newSite(t), newSite(t)
	page := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>please log in</html>"))
	}))
	t.Cleanup(page.Close)
	login := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(login.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, url := range []string{page.URL, login.URL, strings.Replace(plain.URL, "http", "https", 1)} {
		m := s.machine("a", s.token("agent-token"))
		m.cfg.Servers = func() []string { return []string{url} }
		wantIn(t, m.waits(), "what answers at "+url+" is not a kedge server", "proxy")
	}

	// One that opens TLS and passes everything on shows the right authority, and cannot prove itself with it.
	l := s.serve(opener.certs.ServingAPIServer)
	m := s.machine("a", s.token("agent-token"))
	m.cfg.Servers = func() []string { return []string{l.URL} }
	wantIn(t, m.waits(), l.URL+" shows a certificate that the cluster's authority did not issue", "proxy that opens TLS")
	if s.sawToken.Load() {
		t.Error("the token was sent through a proxy that opened TLS")
	}
}

func TestServerNotReady(t *testing.T) {
	s := newSite(t)
	starting := errors.New("starting")
	s.ready.Store(&starting)
	wantIn(t, s.machine("a", s.token("agent-token")).waits(), "the server at "+s.listen.URL+" is not ready yet")
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	wantIn(t, s.machine("a", s.token("agent-token")).waits(), "the server at "+s.listen.URL+" is not ready yet")
	s.before = func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }
	wantIn(t, s.machine("a", s.token("agent-token")).waits(), s.listen.URL+" closes the connection", "starting")
	s.before = nil
	s.ready.Store(nil)
	s.machine("a", s.token("agent-token")).mustStart()
}

func TestSecondServerAnswers(t *testing.T) {
	s := newSite(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	m := s.machine("a", s.token("agent-token"))
	m.cfg.Servers = func() []string { return []string{"https://" + gone.Addr().String(), s.listen.URL} }
	m.mustStart()
	m.cfg.Servers = func() []string { return nil }
	wantIn(t, m.refused(), "no server is known", "--server")
}

func TestSettingsThatCannotWork(t *testing.T) {
	s := newSite(t)
	for token, want := range map[string]string{
		"K10abc::server:x": "damaged", "K10" + strings.Repeat("a", 64) + "::x": "damaged",
		"two words": "space", "K10" + strings.Repeat("a", 64) + "::root:x": "damaged",
	} {
		m := s.machine("a", token)
		_, err := join.NewClient(m.cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "two words") {
			t.Errorf("%s: %v", token, err)
		}
	}
	for _, url := range []string{"10.0.0.1:6443", "http://10.0.0.1:6443", "https://10.0.0.1", "https://10.0.0.1:6443/api", "https://u:p@h:1"} {
		if err := join.CheckURL(url); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := join.CheckURL("https://[fd00::1]:6443/"); err != nil {
		t.Error(err)
	}
}

func TestLostCertificatesAreMadeAnew(t *testing.T) {
	s := newSite(t)
	m := s.machine("a", s.token("agent-token"))
	n := m.mustStart()
	for _, path := range []string{n.ServingKubelet.Key, n.ClientKubelet.Cert} {
		remove(t, path)
	}
	m.mustStart()
	remove(t, n.ClientKubelet.Key) // the identity itself
	wantIn(t, m.refused(), "node name a belongs to another machine", "kedge node readopt a")
}
