// Package openapi serves the OpenAPI documents of built-in groups and custom resources. Each is built when somebody asks for it and dropped after the
// answer: upstream builds all of them at start and keeps them, which is a third of an idle control plane's heap. Only controlplane
// imports it.
package openapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
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
	// V2 is nil where another handler serves the document of version 2.
	V2 *common.Config
	V3 *common.OpenAPIV3Config
	// Identity changes with everything that changes a document: the version of Kubernetes and the feature gates. Clients keep a
	// document as long as its hash, made of this, stays.
	Identity string
	// Custom, when set, adds the groups of custom resources.
	Custom *Custom
}

// Documents are the documents of one server of the chain.
type Documents struct {
	cfg Config
	// building lets one document be built at a time, which bounds the memory.
	building sync.Mutex
	// etagV2 is that of the last document of version 2; building guards it.
	etagV2 string
	// builtin are the groups of the container.
	builtin func() *catalogue
}

// document is one of version 3, which is not built before it is asked for.
type document struct {
	// hash changes when the document does.
	hash string
	// install builds it and serves it on a mux.
	install func(context.Context, *mux.PathRecorderMux) error
}

// catalogue is what there is at a time. index is the answer that the aggregator asks for once a second.
type catalogue struct {
	documents map[string]document
	index     []byte
}

// Install serves the documents under the paths of the protocol. The container may still be filled until the first request.
func Install(cfg Config, m *mux.PathRecorderMux) *Documents {
	d := &Documents{cfg: cfg}
	identity := digest(cfg.Identity)
	d.builtin = sync.OnceValue(func() *catalogue {
		documents := map[string]document{}
		for _, ws := range cfg.Container.RegisteredWebServices() {
			group := strings.TrimPrefix(ws.RootPath(), "/")
			documents[group] = document{hash: digest(identity + group), install: func(_ context.Context, m *mux.PathRecorderMux) error {
				one := restful.NewContainer()
				one.Add(ws)
				routes.OpenAPI{V3Config: cfg.V3}.InstallV3(one, m)
				return nil
			}}
		}
		return newCatalogue(documents)
	})
	if cfg.V2 != nil {
		m.HandleFunc(pathV2, d.serveV2)
	}
	m.HandleFunc(pathV3, d.serveIndex)
	m.HandlePrefix(pathV3+"/", http.HandlerFunc(d.serveGroup))
	return d
}

// Replace is Install on a mux where upstream's documents of version 3 are served.
func Replace(cfg Config, m *mux.PathRecorderMux) *Documents {
	m.Unregister(pathV3)
	m.Unregister(pathV3 + "/")
	return Install(cfg, m)
}

// digest names a document without building it.
func digest(of string) string {
	sum := sha256.Sum256([]byte(of))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func newCatalogue(documents map[string]document) *catalogue {
	index := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	for group, doc := range documents {
		index.Paths[group] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: doc.address(group)}
	}
	encoded, _ := json.Marshal(index) // strings only, which cannot fail
	return &catalogue{documents, encoded}
}

func (d document) address(group string) string {
	u := url.URL{Path: path.Join(pathV3, group), RawQuery: url.Values{"hash": {d.hash}}.Encode()}
	return u.String()
}

// catalogue is what there is now.
func (d *Documents) catalogue(ctx context.Context) *catalogue {
	if d.cfg.Custom == nil {
		return d.builtin()
	}
	return d.cfg.Custom.catalogue(ctx, d.builtin().documents)
}

func (d *Documents) serveIndex(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(d.catalogue(r.Context()).index)
}

// serveGroup answers as upstream does: a request with the hash may be kept for a year, one with an old hash is sent to the new.
func (d *Documents) serveGroup(w http.ResponseWriter, r *http.Request) {
	group := strings.TrimPrefix(r.URL.Path, pathV3+"/")
	doc, known := d.catalogue(r.Context()).documents[group]
	if !known {
		http.NotFound(w, r)
		return
	}
	hash := r.URL.Query().Get("hash")
	if hash != "" && hash != doc.hash {
		http.Redirect(w, r, doc.address(group), http.StatusMovedPermanently)
		return
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery = "" // the hash is ours, not that of the handler below
	a, err := d.build(doc.install, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if hash != "" {
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	a.send(w)
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) {
	if known := r.Header.Get("If-None-Match"); known != "" && known == d.lastV2() {
		w.Header().Set("Etag", known)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	a, err := d.build(func(_ context.Context, m *mux.PathRecorderMux) error {
		routes.OpenAPI{Config: d.cfg.V2}.InstallV2(d.cfg.Container, m)
		return nil
	}, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
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
func (d *Documents) build(install func(context.Context, *mux.PathRecorderMux) error, r *http.Request) (*answer, error) {
	d.building.Lock()
	defer d.building.Unlock()
	m := mux.NewPathRecorderMux("openapi")
	if err := install(r.Context(), m); err != nil {
		return nil, fmt.Errorf("build OpenAPI document: %w", err)
	}
	a := &answer{header: http.Header{}, code: http.StatusOK}
	m.ServeHTTP(a, r)
	return a, nil
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
