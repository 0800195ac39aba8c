package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"mime"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// doubtAfter is how long the server may be silent before the link is probed; a request that waits for a slow server goes on.
const doubtAfter = 3 * time.Second

// maxPodScopes bounds how many different lists of pods are kept.
const maxPodScopes = 64

// pass has the server answer.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, q *question) {
	p.forward(w, r, q, func(err error) {
		if q.IsResourceRequest && !p.cfg.Link.Up() { // it was lost meanwhile
			p.read(w, r, q)
			return
		}
		p.fail(w, r, p.offline(q, err.Error()))
	})
}

// forward sends a request on, and calls failed when there was no answer.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, q *question, failed func(error)) {
	upgrade := r.Header.Get("Upgrade") != ""
	credential := q.user.Credential
	if q.user.Asker == filter.Operator {
		credential = p.cfg.Kubelet // for what every node may read
	}
	transport, err := p.cfg.Link.Transport(credential, upgrade)
	if err != nil {
		failed(err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.cfg.Link.Epoch(), cancel)()
	doubt := time.AfterFunc(doubtAfter, p.cfg.Link.Doubt)
	defer doubt.Stop()
	server := p.cfg.Link.Server()
	proxy := httputil.ReverseProxy{
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(server)
			out.Out.Host = server.Host
			if p.inspects(q) {
				out.Out.Header.Del("Accept-Encoding")
			}
		},
		Transport: transport, FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			doubt.Stop()
			return p.inspect(q, resp)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the client has left
			}
			p.await(r, doubtAfter+2*time.Second)
			failed(err)
		},
		ErrorLog: log.New(io.Discard, "", 0), // streams end when links do
	}
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // the documented value
			panic(v)
		} else if v != nil && upgradeOrWatch(q, upgrade) {
			return // an end of the stream that the client sees anyway
		} else if v != nil {
			panic(v)
		}
	}()
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

func upgradeOrWatch(q *question, upgrade bool) bool { return upgrade || q.Verb == "watch" }

// await gives a link that a request failed on the time to find out whether it is lost.
func (p *Proxy) await(r *http.Request, within time.Duration) {
	state, _, changed := p.cfg.Link.State()
	if state != link.Up {
		return
	}
	p.cfg.Link.Doubt()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// inspects says whether the answer is looked at on its way.
func (p *Proxy) inspects(q *question) bool {
	if !q.IsResourceRequest {
		return q.Verb == "get"
	}
	if q.Verb == "create" && q.Subresource == "token" {
		return true
	}
	reading := q.Verb == "get" || q.Verb == "list" || q.Verb == "watch"
	return reading && q.Subresource == "" && q.Resource != "events"
}

// inspect keeps what an answer says for when the server is away, and applies the filters.
func (p *Proxy) inspect(q *question, resp *http.Response) error {
	if !p.inspects(q) {
		return nil
	}
	if q.Verb == "get" && q.IsResourceRequest && resp.StatusCode == http.StatusNotFound {
		if s := p.cfg.Cache.Scope(seenKey(q), false); s != nil {
			s.Forget(object.Key(q.Namespace, q.Name))
		}
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return nil
	}
	contentType := resp.Header.Get("Content-Type")
	if strings.Contains(q.accept, "as=Table") {
		p.learnTable(q, resp.Request)
	}
	if _, params, err := mime.ParseMediaType(contentType); q.IsResourceRequest && (err != nil || params["as"] != "" || strings.Contains(q.accept, "as=") && q.Verb == "watch") {
		return nil
	}
	if q.Verb == "watch" {
		p.inspectWatch(q, resp)
		return nil
	}
	if resp.ContentLength > maxRecorded && !p.cfg.Chain.Applies(q.filtered()) {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // read to its end
	out := p.digest(q, contentType, data)
	resp.Body = io.NopCloser(bytes.NewReader(out))
	resp.ContentLength = int64(len(out))
	resp.Header.Set("Content-Length", strconv.Itoa(len(out)))
	return nil
}

// digest keeps an answer, and returns what becomes of it. One that is not understood is passed on as it is.
func (p *Proxy) digest(q *question, contentType string, data []byte) []byte {
	switch {
	case !q.IsResourceRequest:
		p.keepDocument(q, contentType, data)
		return data
	case q.Subresource == "token":
		p.keepToken(q, contentType, data)
		return data
	case q.Verb == "get":
		o, err := object.Read(contentType, data)
		if err != nil || isView(o.Kind) {
			return data
		}
		if o.Version != 0 && len(data) <= maxRecorded {
			p.cfg.Cache.Scope(seenKey(q), true).See(o)
		}
		return p.filterOne(q, contentType, o, data)
	}
	l, err := object.ReadList(contentType, data)
	if err != nil || isView(l.Kind) {
		return data
	}
	if q.user.Asker == filter.Pod && q.options.Continue == "" && l.Continue == "" && len(data) <= maxRecorded {
		if s := p.podScope(q); s != nil {
			s.Replace(l)
		}
	}
	return p.filterList(q, contentType, l, data)
}

// isView says whether an answer is a table or a part of what was asked for. The header of the answer does not tell.
func isView(kind schema.GroupVersionKind) bool { return kind.Group == metav1.GroupName }

// seenKey is the collection of single objects that an asker has read.
func seenKey(q *question) cache.Key {
	return cache.Key{Asker: q.user.Asker, Resource: q.resource, Seen: true}
}

// podScope is where a list of pods is kept, or nil when there are too many.
func (p *Proxy) podScope(q *question) *cache.Scope {
	k := cache.Key{Asker: filter.Pod, Resource: q.resource, Namespace: q.Namespace, Fields: q.options.FieldSelector, Labels: q.options.LabelSelector}
	if s := p.cfg.Cache.Scope(k, false); s != nil {
		return s
	}
	count := 0
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) {
		if s.Key().Asker == filter.Pod {
			count++
		}
	})
	if count >= maxPodScopes {
		return nil
	}
	return p.cfg.Cache.Scope(k, true)
}

func (p *Proxy) filterOne(q *question, contentType string, o *object.Object, data []byte) []byte {
	view := cache.View{Chain: p.cfg.Chain, Request: q.filtered()}
	if !p.cfg.Chain.Applies(view.Request) {
		return data
	}
	seen, err := view.See(o)
	if err != nil || seen == nil || seen == o {
		return data
	}
	if out, err := (object.Form{Proto: object.IsProtoType(contentType)}).Encode(seen); err == nil {
		return out
	}
	return data
}

func (p *Proxy) filterList(q *question, contentType string, l *object.List, data []byte) []byte {
	view := cache.View{Chain: p.cfg.Chain, Request: q.filtered()}
	if !p.cfg.Chain.Applies(view.Request) || l.Continue != "" {
		return data
	}
	out := &object.List{Kind: l.Kind, Version: l.Version}
	for _, o := range l.Items {
		seen, err := view.See(o)
		if err != nil {
			return data
		}
		if seen != nil {
			out.Items = append(out.Items, seen)
		}
	}
	if encoded, err := (object.Form{Proto: object.IsProtoType(contentType)}).EncodeList(out); err == nil {
		return encoded
	}
	return data
}

// inspectWatch applies the filters to a watch, and keeps what a pod is told by it, as long as its list is kept.
func (p *Proxy) inspectWatch(q *question, resp *http.Response) {
	defer p.filterWatch(q, resp) // what is kept is as the server sent it
	if q.user.Asker != filter.Pod {
		return
	}
	s := p.podScope(q)
	if s == nil {
		return
	}
	initial := q.options.SendInitialEvents != nil && *q.options.SendInitialEvents
	if !initial && !s.Synced() {
		return
	}
	pr, pw := io.Pipe()
	go func() {
		err := keepEvents(s, object.NewEventReader(resp.Header.Get("Content-Type"), pr), initial)
		_, _ = io.Copy(io.Discard, pr) // the client's copy goes on
		_ = pr.CloseWithError(err)
	}()
	resp.Body = &tee{ReadCloser: resp.Body, copy: pw}
}

// filterWatch applies the filters to the events of an answer.
func (p *Proxy) filterWatch(q *question, resp *http.Response) {
	view := cache.View{Chain: p.cfg.Chain, Request: q.filtered()}
	if !p.cfg.Chain.Applies(view.Request) {
		return
	}
	contentType, body := resp.Header.Get("Content-Type"), resp.Body
	again := p.cfg.Chain.Changed(view.Request.Resource.GroupResource())
	pr, pw := io.Pipe()
	done := make(chan struct{})
	var changed atomic.Bool
	go func() {
		select {
		case <-done:
		case <-again: // a filter has changed its mind
			changed.Store(true)
			_ = body.Close() // the end of the watch
		}
	}()
	go func() {
		defer close(done)
		form := object.Form{Proto: object.IsProtoType(contentType)}
		err := filterEvents(view, object.NewEventReader(contentType, body), form, pw)
		if changed.Load() {
			err = form.WriteError(pw, apierrors.NewResourceExpired("what this node shows has changed: list again").Status())
		}
		_ = pw.CloseWithError(err)
	}()
	resp.Body = &filteredBody{Reader: pr, closed: func() error { return errors.Join(pr.Close(), body.Close()) }}
}

// filteredBody is what is left of an answer.
type filteredBody struct {
	io.Reader
	closed func() error
}

// Close implements io.Closer.
func (b *filteredBody) Close() error { return b.closed() }

// filterEvents passes events on as the asker shall see them.
func filterEvents(view cache.View, events *object.EventReader, form object.Form, out io.Writer) error {
	for {
		e, err := events.Next()
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			return form.WriteError(out, status.Status())
		}
		if err != nil {
			return err
		}
		if e.Type != watch.Bookmark {
			seen, err := view.See(e.Object)
			if err != nil {
				return err
			}
			if seen == nil { // gone, for this asker, who may not have known it
				e.Type = watch.Deleted
			} else {
				e.Object = seen
			}
		}
		if err := form.WriteEvent(out, e.Type, e.Object); err != nil {
			return err
		}
	}
}

// tee passes a stream on and copies it.
type tee struct {
	io.ReadCloser
	copy *io.PipeWriter
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	if n > 0 {
		_, _ = t.copy.Write(b[:n]) // a reader that failed discards
	}
	if err != nil {
		_ = t.copy.CloseWithError(err)
	}
	return n, err
}

func (t *tee) Close() error { return errors.Join(t.ReadCloser.Close(), t.copy.Close()) }

// keepEvents applies events to a scope. Initial ones make a list.
func keepEvents(s *cache.Scope, events *object.EventReader, initial bool) error {
	l := &object.List{}
	for {
		e, err := events.Next()
		if err != nil {
			return err
		}
		switch {
		case !initial:
			s.Apply(e)
		case e.Type == watch.Bookmark && e.InitialEnd:
			initial = false
			l.Kind, l.Version = e.Object.Kind, e.Object.Version
			s.Replace(l)
		case e.Type != watch.Bookmark:
			l.Items = append(l.Items, e.Object)
		}
	}
}
