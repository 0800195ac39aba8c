// Package openapi serves the OpenAPI documents of built-in groups. Each is built when somebody asks for it and dropped after the
// answer: upstream builds all of them at start and keeps them, which is a third of an idle control plane's heap. Only controlplane
// imports it.
package openapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
)

const (
	pathV2 = "/openapi/v2"
	pathV3 = "/openapi/v3"
)

// Config says what is documented.
type Config struct {
	// Container holds the web services of the groups.
	Container *restful.Container
	V2        *common.Config
	V3        *common.OpenAPIV3Config
	// Identity changes with everything that changes a document: the version of Kubernetes and the feature gates. Clients keep a
	// document as long as its hash, made of this, stays.
	Identity string
}

// Documents are the documents of one server of the chain.
type Documents struct {
	cfg Config
	// building lets one document be built at a time, which bounds the memory.
	building sync.Mutex
	// etagV2 is that of the last document of version 2; building guards it.
	etagV2 string
	groups func() map[string]*restful.WebService
	// identity is the digest of the configured one, index the answer that the aggregator asks for again and again.
	identity [sha256.Size]byte
	index    func() []byte
}

// Install serves the documents under the paths of the protocol. The container may still be filled until the first request.
func Install(cfg Config, m *mux.PathRecorderMux) *Documents {
	d := &Documents{cfg: cfg, identity: sha256.Sum256([]byte(cfg.Identity))}
	d.groups = sync.OnceValue(func() map[string]*restful.WebService {
		groups := map[string]*restful.WebService{}
		for _, ws := range cfg.Container.RegisteredWebServices() {
			groups[strings.TrimPrefix(ws.RootPath(), "/")] = ws
		}
		return groups
	})
	d.index = sync.OnceValue(d.encodeIndex)
	m.HandleFunc(pathV2, d.serveV2)
	m.HandleFunc(pathV3, d.serveIndex)
	m.HandlePrefix(pathV3+"/", http.HandlerFunc(d.serveGroup))
	return d
}

// hash names the document of a group without building it.
func (d *Documents) hash(group string) string {
	sum := sha256.Sum256(append(d.identity[:], group...))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func (d *Documents) address(group string) string {
	u := url.URL{Path: path.Join(pathV3, group), RawQuery: url.Values{"hash": {d.hash(group)}}.Encode()}
	return u.String()
}

func (d *Documents) serveIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(d.index())
}

func (d *Documents) encodeIndex() []byte {
	index := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	for group := range d.groups() {
		index.Paths[group] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: d.address(group)}
	}
	encoded, _ := json.Marshal(index) // strings only, which cannot fail
	return encoded
}

// serveGroup answers as upstream does: a request with the hash may be kept for a year, one with an old hash is sent to the new.
func (d *Documents) serveGroup(w http.ResponseWriter, r *http.Request) {
	group := strings.TrimPrefix(r.URL.Path, pathV3+"/")
	ws := d.groups()[group]
	if ws == nil {
		http.NotFound(w, r)
		return
	}
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != d.hash(group) {
			http.Redirect(w, r, d.address(group), http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery = "" // the hash is ours, not that of the handler below
	d.build(func(m *mux.PathRecorderMux) {
		one := restful.NewContainer()
		one.Add(ws)
		routes.OpenAPI{V3Config: d.cfg.V3}.InstallV3(one, m)
	}, r).send(w)
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) {
	if known := r.Header.Get("If-None-Match"); known != "" && known == d.lastV2() {
		w.Header().Set("Etag", known)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	a := d.build(func(m *mux.PathRecorderMux) {
		routes.OpenAPI{Config: d.cfg.V2}.InstallV2(d.cfg.Container, m)
	}, r)
	a.send(w)
	d.building.Lock()
	defer d.building.Unlock()
	d.etagV2 = a.header.Get("Etag")
}

func (d *Documents) lastV2() string {
	d.building.Lock()
	defer d.building.Unlock()
	return d.etagV2
}

// build makes a document and the answer to one request for it.
func (d *Documents) build(install func(*mux.PathRecorderMux), r *http.Request) *answer {
	d.building.Lock()
	defer d.building.Unlock()
	m := mux.NewPathRecorderMux("openapi")
	install(m)
	a := &answer{header: http.Header{}, code: http.StatusOK}
	m.ServeHTTP(a, r)
	return a
}

// answer holds a response until the document behind it is gone: a slow client must not keep the next one waiting.
type answer struct {
	header http.Header
	body   []byte
	code   int
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) { a.code = code }

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	a.body = append(a.body, b...)
	return len(b), nil
}

func (a *answer) send(w http.ResponseWriter) {
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body)
}
