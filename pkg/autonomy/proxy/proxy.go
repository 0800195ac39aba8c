// Package proxy answers the requests of the node API: from the cache where consistency allows it, by the server while that can be reached, and on
// the node's own authority while it cannot.
// It is a room of pkg/autonomy; only packages of it import it.
package proxy

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// Limits of a request.
const (
	// maxBody bounds what a client may send, as the API server does.
	maxBody = 3 << 20
	// patience is how long a request waits for the link's first state.
	patience = 15 * time.Second
	// maxRecorded bounds an answer that is kept for when the server is away.
	maxRecorded = 4 << 20
)

// Config is what a proxy needs to know.
type Config struct {
	NodeName string
	Cache    *cache.Cache
	Link     *link.Link
	Gate     *identity.Gate
	Tokens   *identity.Tokens
	// Audiences are what tokens for the API are issued for.
	Audiences []string
	Chain     *filter.Chain
	// Kubelet is its credential; KubeletAddress and KubeletTLS lead to its own API.
	Kubelet        link.Credential
	KubeletAddress string
	KubeletTLS     *tls.Config
	Log            *slog.Logger
}

// Proxy is the handler of the node API. It is safe for concurrent use.
type Proxy struct {
	cfg   Config
	infos request.RequestInfoFactory
	// kubelet carries requests to its own API.
	kubelet *http.Transport

	journal sync.Mutex // held while a held write is sent, or superseded
	seq     uint64     // of the last held write; guarded by journal
}

// New makes a proxy.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, infos: request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}}
	p.kubelet = &http.Transport{TLSClientConfig: cfg.KubeletTLS, IdleConnTimeout: time.Minute}
	for _, e := range p.held() {
		p.seq = max(p.seq, e.Seq)
	}
	return p
}

// question is a request, understood.
type question struct {
	*request.RequestInfo
	user     identity.User
	resource schema.GroupVersionResource
	options  metav1.ListOptions
	accept   string
}

// ServeHTTP answers requests of consumers that prove who they are.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, err := p.cfg.Gate.Who(r)
	if err != nil {
		p.fail(w, r, apierrors.NewUnauthorized(err.Error()))
		return
	}
	p.serve(w, r, user)
}

// Plain is the handler of the plain local port: it serves what the node knows to anybody on this machine, to read only, and no secrets.
func (p *Proxy) Plain() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, err := p.infos.NewRequestInfo(r)
		switch {
		case err != nil:
			p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		case r.URL.Path == "/kedge/state":
			p.state(w)
		case r.Method != http.MethodGet || info.Subresource != "":
			p.fail(w, r, apierrors.NewMethodNotSupported(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}, info.Verb))
		case info.Resource == "secrets":
			p.fail(w, r, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, info.Name, errors.New("the plain port shows no secrets")))
		default:
			p.serve(w, r, identity.User{Name: identity.OperatorName, Asker: filter.Operator})
		}
	})
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, user identity.User) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	q, err := p.understand(r, user)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	reading := q.IsResourceRequest && (q.Verb == "get" || q.Verb == "list" || q.Verb == "watch")
	switch {
	case !q.IsResourceRequest:
		p.document(w, r, q)
	case isStream(q):
		p.stream(w, r, q)
	case reading && q.Subresource == "":
		p.read(w, r, q)
	default:
		p.write(w, r, q)
	}
}

// understand parses a request.
func (p *Proxy) understand(r *http.Request, user identity.User) (*question, error) {
	info, err := p.infos.NewRequestInfo(r)
	if err != nil {
		return nil, err
	}
	q := &question{
		RequestInfo: info, user: user, accept: r.Header.Get("Accept"),
		resource: schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource},
	}
	if info.IsResourceRequest {
		err = metav1.Convert_url_Values_To_v1_ListOptions(ptr(r.URL.Query()), &q.options, nil)
	}
	return q, err
}

func ptr[T any](v T) *T { return &v }

// online says whether the server can be asked; it waits for the first answer to that.
func (p *Proxy) online(r *http.Request) bool { return p.cfg.Link.Await(r.Context(), patience) }

// filtered is the question as filters know it.
func (q *question) filtered() filter.Request {
	return filter.Request{Asker: q.user.Asker, User: q.user.Name, Resource: q.resource}
}

// action is the question as RBAC knows it.
func (q *question) action() identity.Action {
	if !q.IsResourceRequest {
		return identity.Action{Verb: q.Verb, Path: q.Path}
	}
	return identity.Action{
		Verb: q.Verb, Group: q.APIGroup, Resource: q.Resource, Subresource: q.Subresource, Namespace: q.Namespace, Name: q.Name,
	}
}

// offline is the refusal of what only the server could do.
func (p *Proxy) offline(q *question, why string) error {
	where := "node " + p.cfg.NodeName + " is offline: "
	if p.cfg.Link.Up() {
		where = "node " + p.cfg.NodeName + " alone: "
	}
	err := apierrors.NewServiceUnavailable(where + why)
	// No time to retry after: clients would wait themselves instead of telling their users.
	err.ErrStatus.Details = &metav1.StatusDetails{Group: q.APIGroup, Kind: q.Resource, Name: q.Name}
	return err
}

// fail answers with an error.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, cache.ErrOffline) {
		err = apierrors.NewServiceUnavailable("node " + p.cfg.NodeName + ": " + err.Error())
	}
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	s := status.Status()
	s.Kind, s.APIVersion = "Status", "v1"
	form := object.Form{Proto: object.IsProtoType(firstAccepted(r))}
	data, err := form.EncodeAny(metav1.Unversioned.WithKind("Status"), &s)
	if err != nil {
		http.Error(w, s.Message, int(s.Code))
		return
	}
	w.Header().Set("Content-Type", form.ContentType(false))
	w.WriteHeader(int(s.Code))
	_, _ = w.Write(data) // the client may be gone
}

func firstAccepted(r *http.Request) string {
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	return strings.TrimSpace(first)
}

// answer writes one object.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, code int, o *object.Object) {
	form := object.ChooseForm(r.Header.Get("Accept"), o.Kind)
	data, err := form.Encode(o)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", form.ContentType(false))
	w.WriteHeader(code)
	_, _ = w.Write(data) // the client may be gone
}

// answerAny writes an object that is not stored.
func (p *Proxy) answerAny(w http.ResponseWriter, r *http.Request, code int, kind schema.GroupVersionKind, v runtime.Object) {
	form := object.ChooseForm(r.Header.Get("Accept"), kind)
	data, err := form.EncodeAny(kind, v)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", form.ContentType(false))
	w.WriteHeader(code)
	_, _ = w.Write(data) // the client may be gone
}

// State is what the plain port says about the node API at /kedge/state.
type State struct {
	// Server is starting, up or down; Since is when that began.
	Server string    `json:"server"`
	Since  time.Time `json:"since"`
	// FullLists is how many lists the server was asked for since the start, HeldWrites how many writes wait for it.
	FullLists  int64 `json:"fullLists"`
	HeldWrites int   `json:"heldWrites"`
	// Traffic is what was exchanged with the server since the start.
	Traffic link.Traffic `json:"traffic"`
	// Prepared says that the node could identify and authorize its pods by itself.
	Prepared bool `json:"prepared"`
}

func (p *Proxy) state(w http.ResponseWriter) {
	state, since, _ := p.cfg.Link.State()
	w.Header().Set("Content-Type", object.MediaJSON)
	_ = json.NewEncoder(w).Encode(State{ // the client may be gone
		Server: state.String(), Since: since, FullLists: p.cfg.Cache.FullLists(), HeldWrites: len(p.held()),
		Prepared: p.prepared(), Traffic: p.cfg.Link.Traffic(),
	})
}

// prepared says whether the server's keys and all roles are known.
func (p *Proxy) prepared() bool {
	for _, resource := range RBACResources() {
		if s := p.cfg.Cache.Scope(rolesKey(resource), false); s == nil || !s.Synced() {
			return false
		}
	}
	return len(p.cfg.Tokens.Keys()) > 0
}
