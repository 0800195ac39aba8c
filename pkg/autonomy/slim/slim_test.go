package slim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/server/routine"

	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// wide is an object whose record of who set which field is most of it.
func wide(t *testing.T, name string, version uint64) *object.Object {
	t.Helper()
	o, err := object.Of(corev1.SchemeGroupVersion.WithKind("Service"), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", ResourceVersion: object.FormatVersion(version), Annotations: map[string]string{
			"about": "a service of the test whose description is somewhat long, as descriptions are",
		}},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// counted counts what a server writes.
type counted struct {
	http.ResponseWriter
	n       int
	flushes int
}

func (c *counted) Write(p []byte) (int, error) { c.n += len(p); return c.ResponseWriter.Write(p) }
func (c *counted) Flush()                      { c.flushes++; c.ResponseWriter.(http.Flusher).Flush() }

// served answers with what write writes, through Front, and returns the answer as the node reads it.
func served(t *testing.T, path, contentType string, ask bool, write func(w http.ResponseWriter)) (*http.Response, *counted) {
	t.Helper()
	count := &counted{}
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		write(w)
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.ResponseWriter = w
		Front(api).ServeHTTP(count, r)
	}))
	t.Cleanup(s.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ask {
		Ask(r, 0, time.Hour)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	Open(resp)
	return resp, count
}

func TestWatchIsSlim(t *testing.T) {
	for name, form := range map[string]object.Form{"protobuf": {Proto: true}, "JSON": {}} {
		t.Run(name, func(t *testing.T) {
			const services = 100
			kind := corev1.SchemeGroupVersion.WithKind("Service")
			must := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			resp, count := served(t, "/api/v1/services?watch=true", form.ContentType(true), true, func(w http.ResponseWriter) {
				for i := range services {
					must(form.WriteEvent(w, watch.Added, wide(t, fmt.Sprintf("service-%d", i), uint64(i+1))))
					w.(http.Flusher).Flush()
				}
				for i, end := range []bool{false, false, true} { // the second is too early
					o, err := object.Bookmark(kind, uint64(1000+i), end)
					must(err)
					must(form.WriteEvent(w, watch.Bookmark, o))
					w.(http.Flusher).Flush()
				}
			})
			events := object.NewEventReader(resp.Header.Get("Content-Type"), resp.Body)
			var bookmarks []uint64
			seen := 0
			for {
				e, err := events.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == watch.Bookmark {
					bookmarks = append(bookmarks, e.Object.Version)
				} else if want := fmt.Sprintf("service-%d", seen); e.Object.Name != want || e.Object.Version != uint64(seen+1) {
					t.Fatalf("event %d is %s at %d", seen, e.Object.Name, e.Object.Version)
				} else {
					seen++
				}
			}
			if seen != services || fmt.Sprint(bookmarks) != "[1000 1002]" {
				t.Errorf("%d services, bookmarks %v", seen, bookmarks)
			}
			t.Logf("%d bytes an event", count.n/services)
			if count.n > 100*services {
				t.Errorf("%d bytes for %d services", count.n, services)
			}
			if count.flushes > services+3 {
				t.Errorf("%d flushes", count.flushes)
			}
		})
	}
}

func TestEventLosesManagers(t *testing.T) {
	raw, err := (&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: strings.Repeat("m", 500)}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var frame bytes.Buffer
	o := &object.Object{Kind: corev1.SchemeGroupVersion.WithKind("Service"), Raw: raw}
	if err := (object.Form{Proto: true}).WriteEvent(&frame, watch.Added, o); err != nil {
		t.Fatal(err)
	}
	out, progress := slim(frame.Bytes(), true)
	if progress || frame.Len() < 500 || len(out) > 150 || next(out, true) != len(out) {
		t.Errorf("%d bytes of %d, progress %v", len(out), frame.Len(), progress)
	}
	e, err := object.NewEventReader(object.MediaProto, bytes.NewReader(out)).Next()
	if err != nil || e.Object.Name != "a" || e.Type != watch.Added {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestOtherAnswers(t *testing.T) {
	long := strings.Repeat(`{"kind":"ServiceList","items":[]} `, 10_000)
	resp, count := served(t, "/api/v1/services", object.MediaJSON, true, func(w http.ResponseWriter) { _, _ = io.WriteString(w, long) })
	if data, err := io.ReadAll(resp.Body); err != nil || string(data) != long || count.n > len(long)/10 {
		t.Errorf("%d bytes of %d in %d, %v", len(data), len(long), count.n, err)
	}
	for name, one := range map[string]struct {
		contentType string
		ask         bool
		code        int
	}{
		"not asked for": {object.MediaJSON, false, http.StatusOK},
		"other content": {"text/plain", true, http.StatusOK},
		"a refusal":     {object.MediaJSON, true, http.StatusForbidden},
	} {
		resp, _ := served(t, "/api/v1/services?watch=true", one.contentType, one.ask, func(w http.ResponseWriter) {
			w.WriteHeader(one.code)
			_, _ = io.WriteString(w, "as it is")
		})
		if data, err := io.ReadAll(resp.Body); err != nil || string(data) != "as it is" || resp.StatusCode != one.code {
			t.Errorf("%s: %d %q, %v", name, resp.StatusCode, data, err)
		}
	}
	for _, value := range []string{"", "1", "1 -1", "x y", "1 99999999", "-5 3"} {
		r := &http.Request{Header: http.Header{header: {value}}}
		if _, _, ok := asked(r); ok {
			t.Errorf("%q was understood", value)
		}
	}
}

// TestWatchesThatGoOnLetOthersBegin has more watches than may begin at once. One that waits in the API server has begun when its answer has; one
// that leaves the rest to a task waits outside of it.
func TestWatchesThatGoOnLetOthersBegin(t *testing.T) {
	end := make(chan struct{})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", object.MediaJSON)
		rest := func() {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-end
		}
		if task := routine.TaskFrom(r.Context()); r.URL.Path == "/task" {
			task.Func = rest
			return
		}
		rest()
	})
	s := httptest.NewServer(Front(api))
	t.Cleanup(s.Close)
	for i := range 2*together + 2 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+[]string{"/task", "/proxied"}[i%2]+"?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		Ask(r, 0, time.Hour)
		resp, err := http.DefaultTransport.RoundTrip(r) // it returns when the answer begins, while those before it go on
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	close(end)
}

func TestPanicOfAWatchIsPassedOn(t *testing.T) {
	api := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	front := Front(api)
	for range together + 1 { // none keeps its slot
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/pods?watch=true", nil)
		Ask(r, 0, time.Hour)
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // the documented value
					t.Errorf("%v", p)
				}
			}()
			front.ServeHTTP(httptest.NewRecorder(), r)
		}()
	}
}
