package history

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// The datastore is asked whether it has told everything soon, and then less and less often: a question that overtakes the watch is lost.
const (
	askFirst = 2 * time.Millisecond
	askEvery = 100 * time.Millisecond
)

// catchUpTime bounds how long one watch keeps others waiting: a reader that is slower begins again where it is then.
const catchUpTime = time.Minute

// maxRounds bounds how often a watch that caught up finds that the cache has moved on meanwhile.
const maxRounds = 5

// resumed is a watch that is told what it missed by the datastore, and then what the cache tells.
type resumed struct {
	store  *store
	key    string
	opts   storage.ListOptions
	ctx    context.Context
	cancel context.CancelFunc
	out    chan watch.Event
}

func newResumed(ctx context.Context, s *store, key string, opts storage.ListOptions) *resumed {
	r := &resumed{store: s, key: key, opts: opts, out: make(chan watch.Event, 10)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// Stop implements watch.Interface.
func (r *resumed) Stop() { r.cancel() }

// ResultChan implements watch.Interface.
func (r *resumed) ResultChan() <-chan watch.Event { return r.out }

// send passes one event on; it returns false when nobody waits any more.
func (r *resumed) send(e watch.Event) bool { return r.sendWithin(r.ctx, e) }

func (r *resumed) sendWithin(ctx context.Context, e watch.Event) bool {
	select {
	case r.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow passes on what a watch of the cache tells, after its first event.
func (r *resumed) follow(first *watch.Event, w watch.Interface) {
	defer r.end()
	r.send(*first)
	r.pass(w)
}

// replay tells what was missed, and then what a watch of the cache tells, whose first event may have been taken.
func (r *resumed) replay(missed []event, first *watch.Event, w watch.Interface) {
	for _, e := range missed {
		if !r.send(e.Event) {
			break
		}
	}
	switch {
	case first != nil && !expired(*first):
		r.follow(first, w)
	case first != nil:
		w.Stop()
		r.resume()
	case r.pass(w):
		r.resume()
	default:
		r.end()
	}
}

func (r *resumed) end() {
	r.cancel()
	close(r.out)
}

// pass passes a watch on, until it or the reader ends. It stops before a first event that says that the version is too old, and returns true.
func (r *resumed) pass(w watch.Interface) (tooOld bool) {
	defer w.Stop()
	for first := true; ; first = false {
		select {
		case <-r.ctx.Done():
			return false
		case e, ok := <-w.ResultChan():
			if ok && first && expired(e) {
				return true
			}
			if !ok || !r.send(e) {
				return false
			}
		}
	}
}

// resume tells what happened from the version on.
func (r *resumed) resume() {
	defer r.end()
	for range maxRounds {
		version, err := r.catchUp()
		if err != nil {
			r.fail(err)
			return
		}
		if version == "" {
			return
		}
		r.opts.ResourceVersion = version
		w, err := r.store.CacheDelegator.Watch(r.ctx, r.key, r.opts)
		if err != nil {
			r.fail(err)
			return
		}
		if !r.pass(w) {
			return
		}
	}
	r.fail(apierrors.NewResourceExpired("too much changes: list again"))
}

func (r *resumed) fail(err error) {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		status = &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Message: err.Error(), Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError,
		}}
	}
	s := status.Status()
	r.send(watch.Event{Type: watch.Error, Object: &s})
}

// catchUp passes on what the datastore knows from the version on, and returns the version up to which that was everything, or "" when the watch
// has ended.
func (r *resumed) catchUp() (string, error) {
	select {
	case r.store.slots <- struct{}{}:
		defer func() { <-r.store.slots }()
	case <-r.ctx.Done():
		return "", nil
	}
	raw, release, err := r.store.use()
	if err != nil {
		return "", err
	}
	defer release()
	ctx, cancel := context.WithTimeout(r.ctx, catchUpTime)
	defer cancel()
	bookmark, err := readUntilNow(ctx, raw, r.key, r.opts, func(e watch.Event) bool { return r.sendWithin(ctx, e) && e.Type != watch.Error })
	if err != nil || bookmark == nil {
		return "", err
	}
	version, err := raw.Versioner().ObjectResourceVersion(bookmark.Object)
	if err != nil {
		return "", err
	}
	if r.opts.Predicate.AllowWatchBookmarks && !r.send(*bookmark) { // the reader may want to know
		return "", nil
	}
	return strconv.FormatUint(version, 10), nil
}

// readUntilNow has a function take what happened from a version until now, and returns a bookmark that says when that is, or nil when the function
// wants no more or ctx has ended.
func readUntilNow(ctx context.Context, raw storage.Interface, key string, opts storage.ListOptions, take func(watch.Event) bool) (*watch.Event, error) {
	// Watches with the same metadata share a stream, and progress is told to all of a stream: this one has its own.
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("history", rand.String(16)))
	opts.ProgressNotify = true
	w, err := raw.Watch(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	pause := askFirst
	ask := time.NewTimer(pause)
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-ask.C:
			if err := raw.RequestWatchProgress(ctx); err != nil {
				return nil, err
			}
			pause = min(2*pause, askEvery)
			ask.Reset(pause)
		case e, ok := <-w.ResultChan():
			switch {
			case !ok:
				return nil, nil
			case e.Type == watch.Bookmark:
				return &e, nil
			case !take(e):
				return nil, nil
			}
		}
	}
}
