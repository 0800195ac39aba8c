package openapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/emicklei/go-restful/v3"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const group = "apis/things/v1"

func config(t *testing.T, identity string) Config {
	t.Helper()
	container := restful.NewContainer()
	for _, root := range []string{"/" + group, "/apis/others/v1"} {
		ws := new(restful.WebService).Path(root).Produces("application/json")
		ws.Route(ws.GET("/count").To(func(*restful.Request, *restful.Response) {}).Operation("count"+root).Returns(http.StatusOK, "OK", ""))
		container.Add(ws)
	}
	definitions := func(common.ReferenceCallback) map[string]common.OpenAPIDefinition { return nil }
	info := &spec.Info{InfoProps: spec.InfoProps{Title: "things", Version: "1"}}
	return Config{
		Container: container, Identity: identity,
		V2: &common.Config{Info: info, GetDefinitions: definitions},
		V3: &common.OpenAPIV3Config{Info: info, GetDefinitions: definitions},
	}
}

func get(m http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
	return text
}

// address is where the index says a group's document is.
func address(t *testing.T, m http.Handler, group string) string {
	t.Helper()
	at := addressOf(t, m, group)
	if at == "" {
		t.Errorf("the index does not name %s", group)
	}
	return at
}

// addressOf is address of a group that may be missing.
func addressOf(t *testing.T, m http.Handler, group string) string {
	t.Helper()
	var index handler3.OpenAPIV3Discovery
	if err := json.NewDecoder(get(m, pathV3).Body).Decode(&index); err != nil {
		t.Fatal(err)
	}
	return index.Paths[group].ServerRelativeURL
}

// TestSameAsUpstream compares both versions with the documents that upstream builds at start.
func TestSameAsUpstream(t *testing.T) {
	ours, theirs := mux.NewPathRecorderMux("ours"), mux.NewPathRecorderMux("theirs")
	cfg := config(t, "1")
	Install(cfg, ours)
	routes.OpenAPI{Config: cfg.V2}.InstallV2(cfg.Container, theirs)
	routes.OpenAPI{V3Config: cfg.V3}.InstallV3(cfg.Container, theirs)
	for _, path := range []string{pathV2, pathV3 + "/" + group} {
		got, want := body(t, get(ours, path)), body(t, get(theirs, path))
		if got != want || !strings.Contains(got, "/"+group+"/count") {
			t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
		}
	}
	if r := get(ours, pathV3+"/apis/none/v1"); r.StatusCode != http.StatusNotFound {
		t.Errorf("a group that is not there: %s", r.Status)
	}
}

func TestHash(t *testing.T) {
	m, newer := mux.NewPathRecorderMux("m"), mux.NewPathRecorderMux("newer")
	Install(config(t, "1"), m)
	Install(config(t, "2"), newer)
	at := address(t, m, group)
	r := get(m, at)
	if r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "public, immutable" || r.Header.Get("Etag") == "" {
		t.Errorf("%s: %s %v", at, r.Status, r.Header)
	}
	if again := address(t, m, group); again != at || address(t, m, "apis/others/v1") == at {
		t.Errorf("the address changed from %s to %s, or is that of another group", at, again)
	}
	r = get(newer, at)
	if where := r.Header.Get("Location"); r.StatusCode != http.StatusMovedPermanently || where != address(t, newer, group) {
		t.Errorf("an old hash: %s to %s", r.Status, where)
	}
}

func TestV2NotModified(t *testing.T) {
	m := mux.NewPathRecorderMux("m")
	Install(config(t, "1"), m)
	etag := get(m, pathV2).Header.Get("Etag")
	if etag == "" {
		t.Fatal("no Etag")
	}
	if r := get(m, pathV2, "If-None-Match", etag); r.StatusCode != http.StatusNotModified {
		t.Errorf("the same document again: %s", r.Status)
	}
	if r := get(m, pathV2, "If-None-Match", `"other"`); r.StatusCode != http.StatusOK {
		t.Errorf("another document: %s", r.Status)
	}
}
