package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
)

func TestNewer(t *testing.T) {
	for _, tc := range []struct {
		mine, shown string
		want        bool
	}{
		{"a:5", "a:4", true}, {"a:5", "a:5", false}, {"a:5", "a:6", false}, {"a:5", "b:6", true}, {"a:5", "", true}, {"a:10", "a:9", true}, {"a:5", "a:x", true},
	} {
		s := v1beta1.Status{Extensions: map[string]any{v1beta1.ExtensionSequence: tc.mine}}
		if newer(s, tc.shown) != tc.want {
			t.Errorf("%s over %s", tc.mine, tc.shown)
		}
	}
}

func TestJudge(t *testing.T) {
	kind := schema.GroupResource{Group: v1beta1.Group, Resource: "devicestatuses"}
	for want, errs := range map[outcome][]error{
		away: {io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, apierrors.NewServiceUnavailable("x"),
			apierrors.NewGenericServerResponse(http.StatusNotFound, "get", kind, "", "no such kind", 0, true)},
		refused: {apierrors.NewForbidden(kind, "d", errors.New("x")), apierrors.NewConflict(kind, "d", errors.New("x"))},
		useless: {apierrors.NewInvalid(schema.GroupKind{Kind: "DeviceStatus"}, "d", nil), apierrors.NewBadRequest("x")},
		arrived: {apierrors.NewNotFound(kind, "d")},
	} {
		for _, err := range errs {
			if got := judge(err); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
}

func TestPatchOf(t *testing.T) {
	v := &v1beta1.Value{Value: "1"}
	state := merge.State{Twins: map[string]merge.Twin{"a": {Pending: true, Desired: v}, "b": {Pending: true, Desired: v}, "c": {Desired: v}}}
	for want, properties := range map[string][]v1beta1.Property{
		`[{"op":"add","path":"/spec/properties/1/desired","value":{"value":"1"}},{"op":"add","path":"/spec/properties/-","value":{"name":"b","desired":{"value":"1"}}}]`:                {{Name: "c"}, {Name: "a"}},
		`[{"op":"add","path":"/spec/properties","value":[{"name":"a","desired":{"value":"1"}}]},{"op":"add","path":"/spec/properties/-","value":{"name":"b","desired":{"value":"1"}}}]`: nil,
	} {
		d := &v1beta1.Device{Spec: v1beta1.DeviceSpec{Properties: properties}}
		if got, err := json.Marshal(patchOf(d, state)); err != nil || string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestFairTurns cuts reports of more devices than the rate allows, some of them busier than others.
func TestFairTurns(t *testing.T) {
	h, err := hub.New(hub.Config{Dir: t.TempDir(), Node: "n", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Store().Close() })
	for i := range 30 {
		d := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: fmt.Sprint("d", i)}}
		if err := errors.Join(h.PutDevice(d), h.ReportState(fmt.Sprint("n/d", i), "online")); err != nil {
			t.Fatal(err)
		}
	}
	p := newPublisher(New(Config{Hub: h, Rate: 10, Log: slog.New(slog.DiscardHandler)}))
	keys, _ := p.changes.Take()
	p.queue = keys
	seen, last := map[string]int{}, uint64(0)
	now := p.filled
	for range 30 { // three seconds
		reports, err := p.cut(now)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			if seen[r.Key]++; r.sequence <= last {
				t.Errorf("number %d after %d", r.sequence, last)
			}
			last = r.sequence
		}
		p.queue = append(p.queue, "n/d0") // always has something new
		now = now.Add(100 * time.Millisecond)
	}
	total := 0
	for _, n := range seen {
		total += n
	}
	if len(seen) != 30 || total > 40 || seen["n/d0"] > 3 {
		t.Errorf("%d devices, %d reports, %d of the busy one", len(seen), total, seen["n/d0"])
	}
}

// TestReportsOnDiskAreNewerThanTheTwin loses power after a report was kept and before the twin was.
func TestReportsOnDiskAreNewerThanTheTwin(t *testing.T) {
	h, err := hub.New(hub.Config{Dir: t.TempDir(), Node: "n", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Store().Close() })
	at := func(value, ms string) *v1beta1.Value {
		return &v1beta1.Value{Value: value, Metadata: map[string]string{"timestamp": ms}}
	}
	d := &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "d"}, Spec: v1beta1.DeviceSpec{Properties: []v1beta1.Property{{Name: "old"}, {Name: "new"}}}}
	if err := errors.Join(h.PutDevice(d), h.Report("n/d", []hub.Reading{{Property: "old", Reported: at("1", "1000")}, {Property: "new", Reported: at("1", "3000")}})); err != nil {
		t.Fatal(err)
	}
	l := New(Config{Hub: h, Log: slog.New(slog.DiscardHandler)})
	kept := newPublisher(l)
	for i, ms := range []string{"1500", "2000"} {
		kept.keep([]report{{Key: "n/d", sequence: uint64(i + 1), Status: v1beta1.Status{Twins: []v1beta1.Twin{
			{PropertyName: "old", Reported: at("after "+ms, ms), ObservedDesired: at("5", ms)}, {PropertyName: "new", Reported: at("0", ms)}, {PropertyName: "gone", Reported: at("0", ms)},
		}}}, {Key: "n/other", sequence: uint64(i + 10)}})
	}
	newPublisher(l)
	v, _ := h.Get("n/d")
	if got := v.State.Twins["old"]; got.Reported.Value != "after 2000" || got.Observed.Value != "5" {
		t.Errorf("%+v", got)
	}
	if got := v.State.Twins["new"]; got.Reported.Value != "1" || got.Observed != nil || len(v.State.Twins) != 2 {
		t.Errorf("%+v of %d twins", got, len(v.State.Twins))
	}
}
