package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
	"github.com/kedge-io/kedge/pkg/autonomy/slim"
)

// Times and sizes of following the server.
const (
	// watchTime is how long the server is asked to keep a watch.
	watchTime = 50 * time.Minute
	// settleTime is how long a resumed watch may be silent before it has told what was missed.
	settleTime = 50 * time.Millisecond
	// awaitTime bounds how long a reader waits for the server's answer.
	awaitTime = 15 * time.Second
	// headerTime is how long the server may take to answer before the link is doubted.
	headerTime = 5 * time.Second
	maxList    = 256 << 20
	pageSize   = 500
)

// Use says that somebody reads the scope under this identity, until release is called.
func (s *Scope) Use(c link.Credential) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	if !slices.Contains(s.credentials, c) {
		s.credentials = append([]link.Credential{c}, s.credentials...) // the last to come is the first to try
		if shared := s.cache.cfg.Shared; shared != (link.Credential{}) && s.key.Asker != filter.Kubelet {
			s.credentials = slices.DeleteFunc(s.credentials, func(o link.Credential) bool { return o == shared })
			s.credentials = append([]link.Credential{shared}, s.credentials...)
		}
		s.strikes = 0
	}
	s.start()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.users--
		s.idleSince = time.Now()
	}
}

// start begins to follow the server. The lock is held.
func (s *Scope) start() {
	if s.cancel != nil || s.cache.ctx == nil || len(s.credentials) == 0 || s.key.Seen {
		return
	}
	ctx, cancel := context.WithCancel(s.cache.ctx)
	s.cancel = cancel
	s.cache.work.Go(func() { s.follow(ctx) })
}

// wake starts a scope that was used before the cache ran.
func (s *Scope) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users > 0 {
		s.start()
	}
}

func (s *Scope) idle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users == 0 && now.Sub(s.idleSince) > idleAfter
}

// rest stops following the server; what is known stays.
func (s *Scope) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil && s.users == 0 {
		s.cancel()
		s.cancel, s.fresh = nil, false
	}
}

// Await waits until the scope can be read: it follows the server, or the server is out of reach and it was complete once. It fails with
// the server's refusal, or with ErrOffline.
func (s *Scope) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	s.mu.Lock()
	if s.refused != nil {
		s.refused = nil // ask again for this reader
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	for {
		state, _, linkChanged := s.cache.cfg.Link.State()
		s.mu.Lock()
		changed, refused, fresh, synced := s.changed, s.refused, s.fresh, s.synced
		s.mu.Unlock()
		switch {
		case fresh, synced && state == link.Down:
			return nil
		case refused != nil:
			return refused
		case state == link.Down:
			return ErrOffline
		}
		select {
		case <-ctx.Done():
			if synced {
				return nil
			}
			return ErrOffline
		case <-linkChanged:
		case <-changed:
		}
	}
}

// follow keeps the scope as the server has it, until ctx is done.
func (s *Scope) follow(ctx context.Context) {
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-time.After(pause):
		}
		state, _, changed := s.cache.cfg.Link.State()
		if state != link.Up {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			pause = 0
			continue
		}
		begin := time.Now()
		err := s.followOnce(ctx)
		s.mu.Lock()
		s.fresh = false
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			s.version, err = 0, nil
		}
		other := false
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			other = s.refuse(err)
		}
		s.mu.Unlock()
		switch {
		case err == nil || other || errors.Is(err, io.EOF) && time.Since(begin) > time.Minute:
			pause = 0
		default:
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
		}
	}
}

// refuse takes note of the server's refusal, and says whether another identity of this node may have more luck. The lock is held.
func (s *Scope) refuse(err error) bool {
	s.strikes++
	s.credentials = append(s.credentials[1:], s.credentials[0])
	if (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) && s.strikes < len(s.credentials) {
		return true
	}
	s.refused, s.strikes = err, 0
	s.tell()
	return false
}

// followOnce lists if it must, and then watches until that ends.
func (s *Scope) followOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.cache.cfg.Link.Epoch(), cancel)
	defer stop()
	s.mu.Lock()
	version, synced := s.version, s.synced
	s.mu.Unlock()
	if !synced || version == 0 {
		l, err := s.list(ctx)
		if err != nil {
			return err
		}
		s.Replace(l)
		s.setFresh(ctx)
	}
	return s.watch(ctx)
}

func (s *Scope) setFresh(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fresh && ctx.Err() == nil {
		s.fresh, s.refused, s.strikes = true, nil, 0
		s.tell()
	}
}

// list reads everything, in pages.
func (s *Scope) list(ctx context.Context) (*object.List, error) {
	var all *object.List
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	for {
		resp, err := s.ask(ctx, query)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
		_ = resp.Body.Close() // read to its end, or of no use
		if err != nil {
			return nil, fmt.Errorf("read list: %w", err)
		}
		page, err := object.ReadList(resp.Header.Get("Content-Type"), data)
		if err != nil {
			return nil, err
		}
		s.cache.lists.Add(1)
		if all == nil {
			all = page
		} else {
			all.Items, all.Version = append(all.Items, page.Items...), page.Version
		}
		if page.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Continue)
	}
}

// watch follows from the version that is known.
func (s *Scope) watch(ctx context.Context) error {
	s.mu.Lock()
	version := s.version
	s.mu.Unlock()
	seconds := int((watchTime + rand.N(watchTime/5)) / time.Second)
	resp, err := s.ask(ctx, url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {object.FormatVersion(version)}, "timeoutSeconds": {strconv.Itoa(seconds)},
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	caughtUp := time.AfterFunc(settleTime, func() { s.setFresh(ctx) })
	defer caughtUp.Stop()
	events := object.NewEventReader(resp.Header.Get("Content-Type"), resp.Body)
	for {
		e, err := events.Next()
		if err != nil {
			return err
		}
		s.Apply(e)
		caughtUp.Reset(settleTime)
	}
}

// ask sends one request for the resource of the scope.
func (s *Scope) ask(ctx context.Context, query url.Values) (*http.Response, error) {
	s.mu.Lock()
	credential := s.credentials[0]
	s.mu.Unlock()
	l := s.cache.cfg.Link
	transport, err := l.Transport(credential, false)
	if err != nil {
		return nil, err
	}
	if s.key.Fields != "" {
		query.Set("fieldSelector", s.key.Fields)
	}
	if s.key.Labels != "" {
		query.Set("labelSelector", s.key.Labels)
	}
	u := l.Server().JoinPath(ResourcePath(s.key))
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", object.Accept(true))
	req.Header.Set("User-Agent", "kedge-node-api")
	s.askSlim(req)
	doubt := time.AfterFunc(headerTime, l.Doubt)
	resp, err := transport.RoundTrip(req)
	doubt.Stop()
	if err != nil {
		if ctx.Err() == nil {
			l.Doubt()
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // a part of the reason is as good
		_ = resp.Body.Close()
		return nil, object.ReadError(resp.Header.Get("Content-Type"), data, resp.StatusCode)
	}
	slim.Open(resp)
	return resp, nil
}

// askSlim has a watch say where it is when that has not been known for long.
func (s *Scope) askSlim(req *http.Request) {
	s.mu.Lock()
	known := s.confirmed
	s.mu.Unlock()
	slim.Ask(req, progressEvery-min(time.Since(known), progressEvery), progressEvery)
}

// ResourcePath is the path of the collection of a key.
func ResourcePath(k Key) string {
	path := "/apis/" + k.Resource.Group + "/" + k.Resource.Version
	if k.Resource.Group == "" {
		path = "/api/" + k.Resource.Version
	}
	if k.Namespace != "" {
		path += "/namespaces/" + k.Namespace
	}
	return path + "/" + k.Resource.Resource
}
