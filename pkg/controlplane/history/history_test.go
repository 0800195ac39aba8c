package history

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// The way through the datastore itself is tested with a server that restarts, in test/e2e/link.

func TestWhichWatchesResume(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		opts storage.ListOptions
		want bool
	}{
		"from the past":                  {storage.ListOptions{ResourceVersion: "12"}, true},
		"from the past, nothing initial": {storage.ListOptions{ResourceVersion: "12", SendInitialEvents: &no}, true},
		"a list as a watch":              {storage.ListOptions{ResourceVersion: "12", SendInitialEvents: &yes}, false},
		"from now on":                    {storage.ListOptions{}, false},
		"from any version":               {storage.ListOptions{ResourceVersion: "0"}, false},
	} {
		if got := resumes(c.opts); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func tooOld() watch.Event {
	status := apierrors.NewResourceExpired("too old").Status()
	return watch.Event{Type: watch.Error, Object: &status}
}

func TestPassStopsBeforeARefusal(t *testing.T) {
	if e := tooOld(); !expired(e) {
		t.Error("not expired")
	}
	if expired(watch.Event{Type: watch.Error, Object: &metav1.Status{Reason: metav1.StatusReasonInternalError}}) || expired(watch.Event{Type: watch.Added, Object: &corev1.Pod{}}) {
		t.Error("expired")
	}
	r := newResumed(t.Context(), nil, "", storage.ListOptions{})
	w := watch.NewFakeWithChanSize(3, false)
	w.Action(tooOld().Type, tooOld().Object)
	if !r.pass(w) || len(r.out) != 0 {
		t.Error("a refusal was passed on")
	}

	w = watch.NewFakeWithChanSize(3, false)
	w.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	w.Action(tooOld().Type, tooOld().Object) // in the middle it is news for the reader
	w.Stop()
	if r.pass(w) || len(r.out) != 2 {
		t.Errorf("%d events", len(r.out))
	}
	r.fail(apierrors.NewResourceExpired("later"))
	r.Stop()
	for len(r.out) > 1 {
		<-r.ResultChan()
	}
	if last := <-r.ResultChan(); !expired(last) {
		t.Errorf("%+v", last)
	}
}
