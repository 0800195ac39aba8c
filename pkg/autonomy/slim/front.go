package slim

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"k8s.io/apiserver/pkg/server/routine"

	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

const (
	// dictionary is how much of what was sent before helps to compress what comes.
	dictionary = 8 << 10
	// block is how much of an answer that is no watch is compressed at once, and batch how many bytes of events that come together.
	block = 64 << 10
	batch = 16 << 10
	// together is how many watches may begin at once; more wait for their turn. One has begun when its answer does.
	together = 32
)

// Front answers requests in slim form for those who ask for it.
func Front(api http.Handler) http.Handler {
	f := &front{api: api, slots: make(chan struct{}, together)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, every, ok := asked(r)
		if !ok || r.Method != http.MethodGet {
			api.ServeHTTP(w, r)
			return
		}
		r.Header.Del("Accept-Encoding") // or parts of it would be compressed twice
		s := &sender{ResponseWriter: w, watch: r.URL.Query().Get("watch") == "true", due: time.Now().Add(first), every: every}
		defer s.end()
		if s.watch {
			f.serveWatch(s, r)
			return
		}
		api.ServeHTTP(s, r)
	})
}

// front is the API server, and how many more watches may begin.
type front struct {
	api   http.Handler
	slots chan struct{}
}

// serveWatch has a watch wait for events here, and not at the end of all that it takes to begin one: that needs a large stack, and a site with
// many nodes has thousands of watches, which all begin at once when the nodes return together. The API server knows how to leave the rest to a task.
func (f *front) serveWatch(s *sender, r *http.Request) {
	select {
	case f.slots <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	s.begun = sync.OnceFunc(func() { <-f.slots })
	var rest routine.Task
	left := make(chan any, 1)
	go func() {
		defer close(left)
		defer s.begun()
		defer func() {
			if p := recover(); p != nil {
				left <- p
			}
		}()
		f.api.ServeHTTP(s, r.WithContext(routine.WithTask(r.Context(), &rest)))
	}()
	if p, failed := <-left; failed {
		panic(p) // in the goroutine whose panics the HTTP server expects
	}
	if rest.Func != nil {
		rest.Func()
	}
}

// sender writes one answer.
type sender struct {
	http.ResponseWriter
	watch   bool
	begun   func()    // nil for what is no watch
	due     time.Time // when the watch says where it is the next time
	every   time.Duration
	decided bool
	slim    bool // else everything is passed on as it is
	proto   bool
	raw     bool   // the rest of a watch is not split into events any more
	waiting []byte // an event that is not complete, or a block that is not full
	ready   []byte // events that are not sent yet
	before  []byte // the end of what was sent
	written bool   // something was sent since the last flush
}

// Unwrap is for http.ResponseController.
func (s *sender) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// CloseNotify implements what the API server expects of a response of HTTP/2.
func (s *sender) CloseNotify() <-chan bool {
	if n, ok := s.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // the API server asks for it
		return n.CloseNotify()
	}
	return make(chan bool)
}

// WriteHeader implements http.ResponseWriter.
func (s *sender) WriteHeader(code int) {
	if s.decided {
		return
	}
	s.decided = true
	if s.begun != nil {
		s.begun()
	}
	h := s.Header()
	kind := h.Get("Content-Type")
	s.proto = object.IsProtoType(kind)
	if s.slim = code == http.StatusOK && h.Get("Content-Encoding") == "" && (s.proto || strings.HasPrefix(kind, object.MediaJSON)); s.slim {
		h.Set("Content-Encoding", encoding)
		h.Del("Content-Length")
	}
	h.Del("Audit-Id") // different for each answer, and read by nobody
	s.ResponseWriter.WriteHeader(code)
	s.written = true
}

// Write implements http.ResponseWriter.
func (s *sender) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if !s.slim {
		s.written = true
		return s.ResponseWriter.Write(p)
	}
	s.waiting = append(s.waiting, p...)
	var err error
	if s.watch && !s.raw {
		err = s.events()
	} else if s.raw || len(s.waiting) >= block {
		err = s.send(s.waiting, false)
		s.waiting = s.waiting[:0]
	}
	return len(p), err
}

// events sends those that are complete.
func (s *sender) events() error {
	for {
		n := next(s.waiting, s.proto)
		if n == 0 {
			return nil
		}
		if n < 0 {
			s.raw = true
			s.ready = append(s.ready, s.waiting...)
			s.waiting = nil
			return s.sendReady()
		}
		e, progress := slim(s.waiting[:n], s.proto)
		if now := time.Now(); !progress || !now.Before(s.due) {
			if progress {
				s.due = now.Add(s.every)
			}
			s.ready = append(s.ready, e...)
		}
		if s.waiting = s.waiting[n:]; len(s.waiting) == 0 {
			s.waiting = nil // events are rare, and their memory is free meanwhile
		}
		if len(s.ready) >= batch {
			if err := s.sendReady(); err != nil {
				return err
			}
		}
	}
}

// sendReady sends the events that are not sent yet.
func (s *sender) sendReady() error {
	p := s.ready
	s.ready = nil
	if len(p) == 0 {
		return nil
	}
	return s.send(p, false)
}

// send compresses and writes.
func (s *sender) send(p []byte, last bool) error {
	if err := deflate(s.ResponseWriter, p, last, s.before); err != nil {
		return err
	}
	s.remember(p)
	s.written = true
	return nil
}

// remember keeps the end of what was sent.
func (s *sender) remember(p []byte) {
	p = p[max(0, len(p)-dictionary):]
	if s.before == nil && len(p) > 0 {
		s.before = make([]byte, 0, dictionary)
	}
	if more := len(s.before) + len(p) - dictionary; more > 0 {
		s.before = s.before[:copy(s.before, s.before[more:])]
	}
	s.before = append(s.before, p...)
}

// deflate compresses in a goroutine of its own: that takes a large stack, which one that waits for the next event would keep.
func deflate(w io.Writer, p []byte, last bool, before []byte) error {
	var out bytes.Buffer
	done := make(chan error)
	go func() { done <- flate.StatelessDeflate(&out, p, last, before) }()
	if err := <-done; err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Flush implements http.Flusher. What waits for its end stays.
func (s *sender) Flush() {
	s.WriteHeader(http.StatusOK)
	if s.sendReady() != nil || !s.written { // the next write fails
		return
	}
	s.written = false
	_ = http.NewResponseController(s.ResponseWriter).Flush() // the next write fails
}

// end sends what is left.
func (s *sender) end() {
	if s.slim && s.decided && s.sendReady() == nil {
		_ = s.send(s.waiting, true) // the client may be gone
	}
}
