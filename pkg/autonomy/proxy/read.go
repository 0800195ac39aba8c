package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// bookmarkEvery is how often a quiet watch tells up to where it is.
const bookmarkEvery = time.Minute

// read answers get, list and watch.
func (p *Proxy) read(w http.ResponseWriter, r *http.Request, q *question) {
	switch {
	case q.user.Asker == filter.Operator:
		p.readHere(w, r, q)
	case q.user.Asker == filter.Pod:
		if p.online(r) {
			p.pass(w, r, q)
			return
		}
		if err := p.admitHere(q); err != nil {
			p.fail(w, r, err)
			return
		}
		p.readHere(w, r, q)
	case q.Verb != "get" && fromScope(q):
		p.readScope(w, r, q)
	case p.online(r):
		p.pass(w, r, q)
	case q.Verb == "get":
		p.readHere(w, r, q)
	default:
		p.readScope(w, r, q)
	}
}

// fromScope says whether a list or watch of one of the node's own parts may be answered from the cache: a watch follows the server anyway, and a
// list says itself whether any version is good enough.
func fromScope(q *question) bool {
	return q.Verb == "watch" || q.options.ResourceVersion == "0" && q.options.Continue == ""
}

// scopeKey is the scope that answers a list or watch of one of the node's own parts.
func scopeKey(q *question, node string) cache.Key {
	k := cache.Key{
		Asker: q.user.Asker, Resource: q.resource, Namespace: q.Namespace, Fields: q.options.FieldSelector, Labels: q.options.LabelSelector,
	}
	if q.Name != "" && k.Fields == "" {
		k.Fields = "metadata.name=" + q.Name
	}
	if s, err := cache.NewSelector("", k.Labels, k.Fields); err == nil { // one form for each selector
		k.Labels, k.Fields = s.Labels.String(), s.Fields.String()
	}
	whole := k.Namespace == "" && k.Fields == ""
	switch q.Resource {
	case "services":
		if s, err := cache.NewSelector("", "", k.Fields); err == nil && k.Namespace == "" && s.SupportedForServices() {
			k.Asker, k.Labels, k.Fields = "", "", "" // all is selected here
		}
	case "endpointslices", "namespaces":
		if whole {
			k.Asker, k.Labels = "", "" // labels are selected here
		}
	case "nodes":
		if k.Fields == "metadata.name="+node && k.Labels == "" {
			k.Asker = ""
		}
	}
	return k
}

// readScope answers one of the node's own parts from the scope that it asks for.
func (p *Proxy) readScope(w http.ResponseWriter, r *http.Request, q *question) {
	key := scopeKey(q, p.cfg.NodeName)
	labels, fields := "", ""
	if key.Labels == "" {
		labels = q.options.LabelSelector
	}
	if key.Fields == "" {
		fields = q.options.FieldSelector
	}
	selector, err := cache.NewSelector("", labels, fields)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	scope := p.cfg.Cache.Scope(key, true)
	release := scope.Use(q.user.Credential)
	defer release()
	if err := scope.Await(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	view := cache.View{Selector: selector, Chain: p.cfg.Chain, Request: q.filtered()}
	if q.Verb == "watch" {
		p.watch(w, r, q, scope, view, nil)
		return
	}
	l, err := scope.List(view)
	p.answerList(w, r, l, err)
}

// answerList writes a list.
func (p *Proxy) answerList(w http.ResponseWriter, r *http.Request, l *object.List, err error) {
	if err != nil {
		p.fail(w, r, err)
		return
	}
	form := object.ChooseForm(r.Header.Get("Accept"), l.Kind)
	data, err := form.EncodeList(l)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", form.ContentType(false))
	_, _ = w.Write(data) // the client may be gone
}

// watch serves a watch until the client leaves, its time is over, or end is closed.
func (p *Proxy) watch(w http.ResponseWriter, r *http.Request, q *question, scope *cache.Scope, view cache.View, end <-chan struct{}) {
	initial := q.options.SendInitialEvents != nil && *q.options.SendInitialEvents
	since, err := object.ParseVersion(q.options.ResourceVersion)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	if initial {
		since = 0
	}
	follow, first, err := scope.Watch(view, since)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	form := object.ChooseForm(r.Header.Get("Accept"), follow.Kind())
	w.Header().Set("Content-Type", form.ContentType(true))
	w.WriteHeader(http.StatusOK)
	s := &sender{w: w, form: form, watch: follow}
	err = s.send(first)
	if initial && err == nil {
		err = s.bookmark(true)
	}
	if err != nil || s.flush() != nil {
		return
	}
	length := 30*time.Minute + rand.N(30*time.Minute)
	if t := q.options.TimeoutSeconds; t != nil && *t > 0 {
		length = time.Duration(*t) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), length)
	defer cancel()
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.run(ctx, q.options.AllowWatchBookmarks)
}

// sender writes the events of one watch.
type sender struct {
	w     http.ResponseWriter
	form  object.Form
	watch *cache.Watch
}

func (s *sender) run(ctx context.Context, bookmarks bool) {
	for {
		wait, cancel := context.WithTimeout(ctx, bookmarkEvery)
		events, err := s.watch.Next(wait)
		cancel()
		switch {
		case err == nil:
			err = s.send(events)
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			if err = nil; bookmarks {
				err = s.bookmark(false)
			}
		default:
			if status := apierrors.APIStatus(nil); errors.As(err, &status) {
				_ = s.form.WriteError(s.w, status.Status()) // the client may be gone
			}
			return
		}
		if err != nil || s.flush() != nil {
			return
		}
	}
}

func (s *sender) send(events []object.Event) error {
	for _, e := range events {
		if err := s.form.WriteEvent(s.w, e.Type, e.Object); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) bookmark(initialEnd bool) error {
	o, err := object.Bookmark(s.watch.Kind(), s.watch.Version(), initialEnd)
	if err != nil {
		return err
	}
	return s.form.WriteEvent(s.w, watch.Bookmark, o)
}

func (s *sender) flush() error { return http.NewResponseController(s.w).Flush() }

// readHere answers from whatever the node holds, for an asker who may see it: the operator at any time, others while the server is away.
func (p *Proxy) readHere(w http.ResponseWriter, r *http.Request, q *question) {
	if q.Verb == "get" {
		o, complete := p.find(q)
		view := cache.View{Chain: p.cfg.Chain, Request: q.filtered()}
		seen, err := view.See(o)
		switch {
		case err != nil:
			p.fail(w, r, err)
		case seen != nil:
			p.answer(w, r, http.StatusOK, seen)
		case o != nil, complete, q.user.Asker == filter.Kubelet && q.Resource == "leases": // the kubelet makes its own
			p.fail(w, r, apierrors.NewNotFound(q.resource.GroupResource(), q.Name))
		default:
			p.fail(w, r, p.offline(q, "it does not hold this object"))
		}
		return
	}
	scope, selector, err := p.covering(q)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	view := cache.View{Selector: selector, Chain: p.cfg.Chain, Request: q.filtered()}
	switch {
	case scope == nil && q.user.Asker == filter.Operator && q.Verb == "list":
		l, err := p.everything(q, view)
		p.answerList(w, r, l, err)
	case scope == nil:
		p.fail(w, r, p.offline(q, "it does not hold these objects"))
	case q.Verb == "watch":
		var back <-chan struct{}
		if q.user.Asker == filter.Pod { // the server knows more as soon as it can be reached
			_, _, back = p.cfg.Link.State()
		}
		p.watch(w, r, q, scope, view, back)
	default:
		l, err := scope.List(view)
		p.answerList(w, r, l, err)
	}
}

// mayRead says whether what a scope holds may be shown: the node's own parts see what they asked for themselves; pods and the operator, who were
// authorized by their roles, all of it.
func mayRead(u identity.User, k cache.Key) bool {
	return u.Asker == filter.Pod || u.Asker == filter.Operator || k.Asker == "" || k.Asker == u.Asker
}

// find looks for an object in all scopes. complete says that one of them would have it.
func (p *Proxy) find(q *question) (found *object.Object, complete bool) {
	key := object.Key(q.Namespace, q.Name)
	var remembered *object.Object
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) {
		k := s.Key()
		if !mayRead(q.user, k) {
			return
		}
		o, all := s.Get(key)
		into := &found
		if k.Seen {
			into = &remembered
		}
		if o != nil && (*into == nil || o.Version > (*into).Version) {
			*into = o
		}
		covers := k.Namespace == "" || k.Namespace == q.Namespace
		whole := k.Fields == "" || k.Fields == "metadata.name="+q.Name || q.user.Asker == filter.Kubelet && k == cache.PodsKey(p.cfg.NodeName)
		complete = complete || all && covers && k.Labels == "" && whole
	})
	if found == nil && !complete { // what was read once may be gone, but nobody has said so
		found = remembered
	}
	return found, complete
}

// covering finds the smallest complete scope that holds what a list asks for, and how to select from it.
func (p *Proxy) covering(q *question) (*cache.Scope, cache.Selector, error) {
	selector, err := cache.NewSelector(q.Namespace, q.options.LabelSelector, q.options.FieldSelector)
	if err != nil {
		return nil, selector, apierrors.NewBadRequest(err.Error())
	}
	if !selector.Supported(q.resource.Group == "" && q.Resource == "pods") {
		return nil, selector, p.offline(q, "it cannot select by these fields")
	}
	var best *cache.Scope
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) {
		k := s.Key()
		wide := (k.Namespace == "" || k.Namespace == q.Namespace) && (k.Labels == "" || k.Labels == selector.Labels.String()) &&
			(k.Fields == "" || k.Fields == selector.Fields.String())
		if !k.Seen && wide && s.Synced() && mayRead(q.user, k) && (best == nil || s.Count() < best.Count()) {
			best = s
		}
	})
	return best, selector, nil
}

// everything is what all scopes hold of a resource, for the operator of a node that was never asked for all of it.
func (p *Proxy) everything(q *question, view cache.View) (*object.List, error) {
	all, newest := &object.List{}, map[string]*object.Object{}
	var problem error
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) {
		l, err := s.List(view)
		if err != nil {
			problem = err
			return
		}
		if l.Kind.Kind == "" {
			return // nothing is known of it yet
		}
		all.Kind, all.Version = l.Kind, max(all.Version, l.Version)
		for _, o := range l.Items {
			if known := newest[o.Key()]; known == nil || known.Version < o.Version {
				newest[o.Key()] = o
			}
		}
	})
	if all.Kind.Kind == "" {
		return nil, p.offline(q, "it does not hold these objects")
	}
	for _, o := range newest {
		all.Items = append(all.Items, o)
	}
	slices.SortFunc(all.Items, func(a, b *object.Object) int { return strings.Compare(a.Key(), b.Key()) })
	return all, problem
}

// admitHere finds out on this node who asks, by the token, and whether that one may.
func (p *Proxy) admitHere(q *question) error {
	user, err := p.cfg.Tokens.User(q.user.Token, p.cfg.Audiences)
	if err != nil {
		return apierrors.NewUnauthorized(err.Error())
	}
	q.user = user
	return p.authorize(q)
}

// authorize evaluates RBAC for somebody who brought a token.
func (p *Proxy) authorize(q *question) error {
	if p.rules().Allows(q.user, q.action()) {
		return nil
	}
	return apierrors.NewForbidden(q.resource.GroupResource(), q.Name,
		errors.New("node "+p.cfg.NodeName+" is offline and knows no role that lets "+q.user.Name+" "+q.Verb+" this"))
}
