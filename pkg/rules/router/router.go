// Package router is the servers' end of rules: it watches them, tells nodes what to do, takes requests for nodes and messages from nodes, and
// counts in the status of each rule what became of its messages. Rooms of rules import it.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/rules/plan"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

// usersPrefix is where requests for nodes begin on the shared port: /rules/<node>/<namespace>/<path>.
const usersPrefix = "/rules/"

// Config says how servers reach the API, nodes and those who ask.
type Config struct {
	// Client is of a user who may read rules, write their status and review access.
	Client *rest.Config
	// Dial connects to the node's end.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Identify returns the node whose certificate a request was made with.
	Identify func(*http.Request) (node string, err error)
	// Authenticate returns who else makes a request.
	Authenticate func(*http.Request) (user.Info, error)
	// Open is an address with a port where requests are served without TLS and to anybody, as others of the family do; empty means nowhere.
	Open string
	Log  *slog.Logger
}

// Router is the component "rules" of a server and the handler of its part of the shared port.
type Router struct {
	cfg     Config
	api     dynamic.Interface
	reviews reviewer
	nodes   *http.Transport
	targets *http.Client
	status  *counter

	routes atomic.Pointer[[]plan.Route] // nil until they are known
	// slots are for requests of users, senders for those of nodes, which wait for targets.
	slots, senders chan struct{}

	mu    sync.Mutex
	plans map[string]wire.Plan // by node, those that are not empty
	known map[string]string    // by node, the digest of the plan that it has
	news  chan struct{}        // a token when plans have changed
}

// maxRequests is how many requests of users are served at once, and maxSenders how many of nodes.
const (
	maxRequests = 128
	maxSenders  = 64
)

// New starts nothing.
func New(cfg Config) (*Router, error) {
	if cfg.Client == nil || cfg.Dial == nil || cfg.Identify == nil || cfg.Authenticate == nil || cfg.Log == nil {
		return nil, errors.New("rules: Client, Dial, Identify, Authenticate and Log are required")
	}
	api, err := dynamic.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	typed, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	r := &Router{
		cfg: cfg, api: api, targets: newTargets(), status: newCounter(api.Resource(v1.Rules()), cfg.Log), slots: make(chan struct{}, maxRequests), senders: make(chan struct{}, maxSenders),
		plans: map[string]wire.Plan{}, known: map[string]string{}, news: make(chan struct{}, 1),
	}
	r.reviews = reviewer{create: func(ctx context.Context, review *authorizationv1.SubjectAccessReview) (bool, error) {
		out, err := typed.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, createOptions())
		return err == nil && out.Status.Allowed, err
	}, verdicts: map[string]verdict{}}
	r.nodes = r.newNodes()
	return r, nil
}

// Name implements supervisor.Component.
func (*Router) Name() string { return "rules" }

// Ready implements supervisor.Component. Until the rules are known, requests are answered with 503.
func (*Router) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (r *Router) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { r.watch(ctx) })
	parts.Go(func() { r.tell(ctx) })
	parts.Go(func() { r.status.run(ctx) })
	parts.Go(func() { r.serveOpen(ctx) })
	parts.Wait()
	r.nodes.CloseIdleConnections()
	r.targets.CloseIdleConnections()
	return nil
}

// serveOpen serves requests to anybody, if that was asked for.
func (r *Router) serveOpen(ctx context.Context) {
	for said := false; r.cfg.Open != "" && ctx.Err() == nil; {
		l, err := net.Listen("tcp", r.cfg.Open)
		if err == nil {
			r.cfg.Log.Warn("requests for nodes are taken from anybody, without encryption", "address", r.cfg.Open)
			err = serve(ctx, http.HandlerFunc(r.serveAnybody), l)
		}
		if ctx.Err() == nil && !said {
			r.cfg.Log.Warn("requests for nodes are not taken", "address", r.cfg.Open, "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
}

// Handles says whether a path of the shared port is for this handler.
func Handles(path string) bool {
	return strings.HasPrefix(path, usersPrefix) || strings.HasPrefix(path, wire.Prefix)
}

// ServeHTTP answers users and nodes.
func (r *Router) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	slots := r.slots
	if strings.HasPrefix(q.URL.Path, wire.Prefix) {
		slots = r.senders
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once", http.StatusTooManyRequests)
		return
	}
	switch q.URL.Path {
	case wire.PathPlan, wire.PathMessages, wire.PathCall:
		r.serveNode(w, q)
	default:
		if strings.HasPrefix(q.URL.Path, usersPrefix) {
			r.serveUser(w, q)
			return
		}
		http.NotFound(w, q)
	}
}

// current returns the rules that work; ok is false until they are known.
func (r *Router) current() (routes []plan.Route, ok bool) {
	p := r.routes.Load()
	if p == nil {
		return nil, false
	}
	return *p, true
}
