package registries

import (
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secured asks for a login: with a token as most registries do, or by user and password.
func secured(t *testing.T, tokens bool) *httptest.Server {
	t.Helper()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("shop:secret"))
	mux := http.NewServeMux()
	var s *httptest.Server
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != basic || !strings.Contains(r.URL.RawQuery, url.QueryEscape("repository:copies/team/app:pull")) {
			http.Error(w, r.URL.RawQuery, http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"token": "good"}`)
	})
	mux.HandleFunc("GET /v2/copies/team/app/manifests/1", func(w http.ResponseWriter, r *http.Request) {
		switch got := r.Header.Get("Authorization"); {
		case tokens && got != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="test",scope="repository:copies/team/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		case !tokens && got != basic:
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("Content-Type", r.Header.Get("Accept"))
			_, _ = io.WriteString(w, "manifest "+r.URL.RawQuery)
		}
	})
	s = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

// rewriter serves an example with a mirror at a server whose certificate only its own file vouches for.
func rewriter(t *testing.T, s *httptest.Server, password string) *Rewriter {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(s.URL, "https://")
	r, err := NewRewriter(Config{
		Mirrors: map[string]Mirror{"docker.io": {Endpoints: []string{s.URL}, Rewrites: map[string]string{"^library/(.*)$": "no/$1", "^team/(.*)$": "copies/team/$1"}}},
		Configs: map[string]HostConfig{host: {Auth: &Auth{Username: "shop", Password: password}, TLS: &TLS{CAFile: ca}}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = r.Serve(t.Context()) }()
	return r
}

func ask(t *testing.T, url string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/test")
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data), response.Header
}

func TestRewriterLogsIn(t *testing.T) {
	for _, tokens := range []bool{true, false} {
		s := secured(t, tokens)
		at := rewriter(t, s, "secret").Through("docker.io", 0)
		status, body, header := ask(t, at+"/team/app/manifests/1?ns=docker.io")
		if status != http.StatusOK || body != "manifest ns=docker.io" || header.Get("Content-Type") != "application/test" {
			t.Errorf("tokens %v: %d %q %v", tokens, status, body, header)
		}
		if status, _, _ := ask(t, at+"/team/other/manifests/1"); status != http.StatusNotFound {
			t.Errorf("an image that is not there: %d", status)
		}
	}
}

func TestRewriterKeepsStrangersOut(t *testing.T) {
	s := secured(t, false)
	r := rewriter(t, s, "secret")
	at := r.Through("docker.io", 0)
	for _, url := range []string{
		strings.Replace(at, r.key, "guess", 1) + "/team/app/manifests/1",
		r.Through("docker.io", 1) + "/team/app/manifests/1",
		"http://" + r.listener.Addr().String() + "/",
	} {
		if status, _, _ := ask(t, url); status != http.StatusNotFound {
			t.Errorf("%s: %d", url, status)
		}
	}
	wrong := rewriter(t, s, "wrong").Through("docker.io", 0)
	if status, _, header := ask(t, wrong+"/team/app/manifests/1"); status == http.StatusOK || status == http.StatusUnauthorized || header.Get("WWW-Authenticate") != "" {
		t.Errorf("a wrong password: %d %v", status, header)
	}
}

func TestRename(t *testing.T) {
	c := Config{Mirrors: map[string]Mirror{"x": {Endpoints: []string{"http://m/base/v2/"}, Rewrites: map[string]string{"^a/": "b/", "c$": "d"}}}}
	to, err := c.route(c.Mirrors["x"], 0)
	if err != nil {
		t.Fatal(err)
	}
	if to.base.String() != "http://m/base/v2" {
		t.Error(to.base)
	}
	for in, want := range map[string]string{"a/c": "b/c", "c/c": "c/d", "other": "other"} {
		if got := to.rename(in); got != want {
			t.Errorf("%s becomes %s", in, got)
		}
	}
	for path, want := range map[string]string{"a/b/manifests/1": "a/b", "a/manifests/blobs/sha256:1": "a/manifests", "": "", "_catalog": ""} {
		if got, _ := splitPath(path); got != want {
			t.Errorf("%q: %q", path, got)
		}
	}
}

func TestCredentials(t *testing.T) {
	for _, tc := range []struct {
		auth         *Auth
		user, secret string
		bad          bool
	}{
		{nil, "", "", false},
		{&Auth{Username: "u", Password: "p"}, "u", "p", false},
		{&Auth{IdentityToken: "t"}, "", "t", false},
		{&Auth{Auth: base64.StdEncoding.EncodeToString([]byte("u:p:q"))}, "u", "p:q", false},
		{&Auth{Auth: "no base64"}, "", "", true},
	} {
		user, secret, err := tc.auth.credentials()
		if (err != nil) != tc.bad || !tc.bad && (user != tc.user || secret != tc.secret) {
			t.Errorf("%+v: %q %q %v", tc.auth, user, secret, err)
		}
	}
}
