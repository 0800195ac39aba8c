package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/rules/plan"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// publishTimeout bounds how long a message may take to the bus of a node, and serviceTimeout an answer of a service there.
	publishTimeout = 15 * time.Second
	serviceTimeout = time.Minute
	// maxOpen is how many connections of anybody are open at once.
	maxOpen = 256
)

// newNodes makes the transport to nodes: the host of a URL is the name of a node.
func (r *Router) newNodes() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			c, err := r.cfg.Dial(ctx, node)
			if err != nil {
				return nil, &unreachable{err}
			}
			return c, nil
		},
		MaxIdleConnsPerHost: 2, MaxConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}
}

// unreachable says that a node cannot be reached now.
type unreachable struct{ err error }

func (u *unreachable) Error() string { return u.err.Error() }
func (u *unreachable) Unwrap() error { return u.err }

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

func serve(ctx context.Context, h http.Handler, l net.Listener) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(netutil.LimitListener(l, maxOpen)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveAnybody serves the port where nobody is asked who he is.
func (r *Router) serveAnybody(w http.ResponseWriter, q *http.Request) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		http.Error(w, "too many requests for nodes at once", http.StatusTooManyRequests)
		return
	}
	route, request, rest, ok := r.find(w, q.URL.Path)
	if ok {
		r.forward(w, q, route, request.Node, rest)
	}
}

// serveUser serves the shared port.
func (r *Router) serveUser(w http.ResponseWriter, q *http.Request) {
	who, err := r.cfg.Authenticate(q)
	if err != nil {
		http.Error(w, "send a token of a service account (Authorization: Bearer …) or use a client certificate", http.StatusUnauthorized)
		return
	}
	route, request, rest, ok := r.find(w, strings.TrimPrefix(q.URL.Path, usersPrefix))
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	allowed, err := r.reviews.may(ctx, who, route.Namespace, route.Name)
	if err != nil {
		http.Error(w, "the API server does not say who may do this: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	if !allowed {
		http.Error(w, fmt.Sprintf("%s may not send through rule %s: it needs the verb create on rules/messages, as the cluster role kedge:rules-send has",
			who.GetName(), route.Key()), http.StatusForbidden)
		return
	}
	q.Header.Del("Authorization") // it was for this server
	r.forward(w, q, route, request.Node, rest)
}

func (r *Router) find(w http.ResponseWriter, path string) (route plan.Route, q plan.Request, rest []string, ok bool) {
	routes, known := r.current()
	if !known {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the rules are not known yet", http.StatusServiceUnavailable)
		return route, q, nil, false
	}
	q, ok = plan.ReadRequest(path)
	if !ok || len(validation.IsDNS1123Subdomain(q.Node)) > 0 {
		http.Error(w, "the path must be like /<node>/<namespace>/<path of the rule>", http.StatusNotFound)
		return route, q, nil, false
	}
	if route, rest, ok = plan.Match(routes, q); !ok {
		http.Error(w, "no rule of namespace "+q.Namespace+" has this path", http.StatusNotFound)
	}
	return route, q, rest, ok
}

// forward does what a rule says with a request.
func (r *Router) forward(w http.ResponseWriter, q *http.Request, route plan.Route, node string, rest []string) {
	if route.Target == v1.EventBus {
		q.Body = http.MaxBytesReader(w, q.Body, wire.MaxMessage)
		if q.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "messages are sent with POST", http.StatusMethodNotAllowed)
			return
		}
		r.toBus(w, q, route, node, rest)
		return
	}
	if q.Header.Get("Upgrade") != "" {
		http.Error(w, "connections that change their protocol are not passed on", http.StatusNotImplemented)
		return
	}
	q.Body = http.MaxBytesReader(w, q.Body, wire.MaxBody)
	r.toService(w, q, route, node, rest)
}

// toBus publishes a request on the bus of a node.
func (r *Router) toBus(w http.ResponseWriter, q *http.Request, route plan.Route, node string, rest []string) {
	topic := plan.Join(route.Topic, rest)
	if reason := plan.BadTopic(topic); reason != "" {
		http.Error(w, "topic "+reason, http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		code := http.StatusBadRequest
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), code)
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), publishTimeout)
	defer cancel()
	if err := r.publish(ctx, node, topic, body); err != nil {
		r.status.add(route.Key(), 0, 1, err.Error())
		refuse(w, node, err)
		return
	}
	r.status.add(route.Key(), 1, 0, "")
	_, _ = io.WriteString(w, "message delivered")
}

func (r *Router) publish(ctx context.Context, node, topic string, body []byte) error {
	p, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+node+wire.NodePublish+"?topic="+url.QueryEscape(topic), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := r.nodes.RoundTrip(p)
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return &unreachable{fmt.Errorf("node %s: %s", node, strings.TrimSpace(string(text)))}
	}
	return nil
}

// refuse says in the answer why a node did not get a request: 503 when it cannot have it, 504 when it may have it.
func refuse(w http.ResponseWriter, node string, err error) {
	if away := (*unreachable)(nil); errors.As(err, &away) {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "not delivered: "+away.Error(), http.StatusServiceUnavailable)
		return
	}
	http.Error(w, fmt.Sprintf("node %s did not answer in time; it may have got the message: %v", node, err), http.StatusGatewayTimeout)
}

// toService passes a request on to a service of a node, and its answer back.
func (r *Router) toService(w http.ResponseWriter, q *http.Request, route plan.Route, node string, rest []string) {
	ctx, cancel := context.WithTimeout(q.Context(), serviceTimeout)
	defer cancel()
	path := wire.NodeService + strconv.Itoa(route.Port) + plan.Join(route.Path, rest)
	proxy := httputil.ReverseProxy{
		Transport: r.nodes,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: node})
			p.Out.URL.Path, p.Out.URL.RawPath = path, ""
			p.Out.Host = ""
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.Header.Get(wire.HeaderFailed) != "" {
				resp.Header.Del(wire.HeaderFailed)
				r.status.add(route.Key(), 0, 1, "node "+node+": the service cannot be reached")
				return nil
			}
			r.status.add(route.Key(), 1, 0, "")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			r.status.add(route.Key(), 0, 1, err.Error())
			refuse(w, node, err)
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	proxy.ServeHTTP(w, q.WithContext(ctx))
}

const (
	// believe is how long an answer about access counts, and maxVerdicts how many are remembered.
	believe     = 10 * time.Second
	maxVerdicts = 1024
)

func createOptions() metav1.CreateOptions { return metav1.CreateOptions{} }

type verdict struct {
	allowed bool
	until   time.Time
}

// reviewer asks the API server who may send messages through which rule: create on rules/messages.
type reviewer struct {
	create func(context.Context, *authorizationv1.SubjectAccessReview) (bool, error)

	mu       sync.Mutex
	verdicts map[string]verdict
}

func (v *reviewer) may(ctx context.Context, who user.Info, namespace, rule string) (bool, error) {
	key := fmt.Sprintf("%q %q %q %q %q", who.GetName(), who.GetUID(), who.GetGroups(), namespace, rule)
	v.mu.Lock()
	last, ok := v.verdicts[key]
	v.mu.Unlock()
	if ok && time.Now().Before(last.until) {
		return last.allowed, nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, values := range who.GetExtra() {
		extra[k] = values
	}
	allowed, err := v.create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Name: rule, Verb: "create", Group: v1.Group, Version: v1.Version, Resource: "rules", Subresource: "messages",
		},
	}})
	if err != nil {
		return false, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verdicts) >= maxVerdicts {
		clear(v.verdicts)
	}
	v.verdicts[key] = verdict{allowed, time.Now().Add(believe)}
	return allowed, nil
}
