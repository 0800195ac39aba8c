package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/merge"
)

func open(t *testing.T, dir string) *Hub {
	t.Helper()
	h, err := New(Config{Dir: dir, Node: "n1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.store.Close() })
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func aModel() *v1beta1.DeviceModel {
	return &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "m"}, Spec: v1beta1.DeviceModelSpec{Properties: []v1beta1.ModelProperty{
		{Name: "a", Type: "INT", AccessMode: "ReadWrite", Maximum: "10"}, {Name: "b", Type: "STRING", AccessMode: "ReadWrite"},
	}}}
}

func aDevice(desired string) *v1beta1.Device {
	return &v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "d", UID: "1"}, Spec: v1beta1.DeviceSpec{
		DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, NodeName: "n1",
		Properties: []v1beta1.Property{{Name: "a", Desired: &v1beta1.Value{Value: desired}}},
	}}
}

// desired is the value that stands, and whether the API does not know it.
func desired(h *Hub, property string) string {
	v, _ := h.Get("n/d")
	t := v.State.Twins[property]
	if t.Desired == nil {
		return "none"
	}
	return fmt.Sprintf("%s %v", t.Desired.Value, t.Pending)
}

func TestWhatIsWantedOutlivesAPowerCut(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	must(t, h.PutModel(aModel()))
	must(t, h.PutDevice(aDevice("1")))
	must(t, h.SetDesired("n/d", "a", v1beta1.Value{Value: "2"}))
	must(t, h.SetDesired("n/d", "b", v1beta1.Value{Value: `{"ü": 1}`}))
	must(t, h.store.Close()) // and nothing else

	h = open(t, dir)
	if got := desired(h, "a") + " " + desired(h, "b"); got != `2 true {"ü": 1} true` {
		t.Errorf("after the restart %s", got)
	}
	must(t, h.PutDevice(aDevice("1"))) // the cluster has nothing new
	if got := desired(h, "a"); got != "2 true" {
		t.Errorf("the cluster's old value won: %s", got)
	}
	v, _ := h.Get("n/d")
	if n := len(v.Device.Spec.Properties); n != 2 || len(merge.Pending(v.State)) != 2 {
		t.Errorf("%d properties, %v pending", n, merge.Pending(v.State))
	}
	must(t, h.PutDevice(aDevice("3")))
	if got := desired(h, "a"); got != "3 false" {
		t.Errorf("the cluster's new value lost: %s", got)
	}
}

func TestWhatIsRefused(t *testing.T) {
	h := open(t, t.TempDir())
	must(t, h.PutDevice(aDevice("1")))
	if got := desired(h, "a"); got != "none" {
		t.Errorf("a value that nobody could check stands: %s", got)
	}
	must(t, h.PutModel(aModel()))
	if got := desired(h, "a"); got != "1 false" {
		t.Errorf("when the model is there: %s", got)
	}
	if err := h.PutDevice(aDevice("11")); !errors.Is(err, ErrRefused) || desired(h, "a") != "1 false" {
		t.Errorf("%v, now %s", err, desired(h, "a"))
	}
	for _, tc := range []struct {
		key, property, value string
		want                 error
	}{
		{"n/x", "a", "1", ErrUnknownDevice}, {"n/d", "x", "1", ErrUnknownProperty}, {"n/d", "a", "11", ErrRefused}, {"n/d", "a", "", ErrRefused},
	} {
		if err := h.SetDesired(tc.key, tc.property, v1beta1.Value{Value: tc.value}); !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	err := h.Report("n/d", []Reading{
		{Property: "a", Reported: &v1beta1.Value{Value: "x"}}, {Property: "b", Reported: &v1beta1.Value{Value: "good"}},
		{Property: "stray", Reported: &v1beta1.Value{Value: "kept"}},
	})
	v, _ := h.Get("n/d")
	if !errors.Is(err, ErrRefused) || v.State.Twins["b"].Reported.Value != "good" || v.State.Twins["stray"].Reported.Metadata["problem"] != "not in the model" {
		t.Errorf("%v, %+v", err, v.State.Twins)
	}
	for i := range 2 * maxStray {
		_ = h.Report("n/d", []Reading{{Property: fmt.Sprint("p", i), Reported: &v1beta1.Value{Value: "1"}}})
	}
	if v, _ = h.Get("n/d"); len(v.State.Twins) > maxStray+len(v.Device.Spec.Properties) {
		t.Errorf("%d twins", len(v.State.Twins))
	}
}

func TestListenersAreNeverBehind(t *testing.T) {
	h := open(t, t.TempDir())
	must(t, h.PutModel(aModel()))
	c := h.Subscribe(Desired|Reported, false)
	must(t, h.PutDevice(aDevice("1")))
	for i := range 1000 {
		must(t, h.Report("n/d", []Reading{{Property: "a", Reported: &v1beta1.Value{Value: fmt.Sprint(i % 10)}}}))
	}
	keys, kinds := c.Take()
	if strings.Join(keys, ",") != "n/d" || kinds["n/d"] != Desired|Reported {
		t.Errorf("%v %v", keys, kinds)
	}
	must(t, h.Report("n/d", []Reading{{Property: "a", Reported: &v1beta1.Value{Value: "9"}}}))
	must(t, h.PutDevice(aDevice("1")))
	if keys, _ = c.Take(); len(keys) != 0 {
		t.Errorf("what is the same changed %v", keys)
	}
	c.Close()
	must(t, h.PutDevice(aDevice("2")))
	if keys, _ = c.Take(); len(keys) != 0 {
		t.Errorf("a closed listener heard %v", keys)
	}
}

func TestReportsAreOnDiskSoon(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	h.cfg.Flush = time.Millisecond
	must(t, h.PutModel(aModel()))
	must(t, h.PutDevice(aDevice("1")))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	must(t, h.Report("n/d", []Reading{{Property: "a", Reported: &v1beta1.Value{Value: "7"}}}))
	must(t, h.ReportState("n/d", "ONLINE"))
	if err := h.ReportState("n/d", "asleep"); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	cancel()
	must(t, <-done)
	h = open(t, dir)
	if v, _ := h.Get("n/d"); v.State.Twins["a"].Reported.Value != "7" || v.State.State != "online" || v.State.LastOnline.IsZero() {
		t.Errorf("%+v", v.State)
	}
	must(t, h.RemoveDevice("n/d"))
	must(t, h.store.Close())
	if h = open(t, dir); h.Len() != 0 {
		t.Error("a device that was removed is there again")
	}
}
