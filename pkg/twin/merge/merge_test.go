package merge

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

func value(text string) *v1beta1.Value {
	if text == "" {
		return nil
	}
	return &v1beta1.Value{Value: text}
}

// play makes events of words: c:1 the cluster wants 1, s:1 somebody at the node sets 1, u:1 the API has taken 1.
func play(t *testing.T, events string) (s State, told []string) {
	t.Helper()
	for event := range strings.FieldsSeq(events) {
		kind, text, _ := strings.Cut(event, ":")
		switch kind {
		case "c":
			var changed []string
			s, changed = Spec(s, []v1beta1.Property{{Name: "p", Desired: value(text)}})
			if len(changed) > 0 {
				told = append(told, text)
			}
		case "s":
			s = Set(s, "p", value(text))
			told = append(told, text)
		case "u":
			s = Uploaded(s, "p", value(text))
		}
	}
	return s, told
}

func TestWhoWins(t *testing.T) {
	for events, want := range map[string]string{
		"c:1":                 "1 pending=false told=[1]",
		"c:1 c:1 c:1":         "1 pending=false told=[1]",
		"c:1 c:2":             "2 pending=false told=[1 2]",
		"c:1 s:2":             "2 pending=true told=[1 2]",
		"c:1 s:2 c:1":         "2 pending=true told=[1 2]", // the cluster says what it said before
		"c:1 s:2 c:3":         "3 pending=false told=[1 2 3]",
		"c:1 s:2 u:2 c:2":     "2 pending=false told=[1 2]",
		"c:1 s:2 s:3 u:2":     "3 pending=true told=[1 2 3]",
		"c:1 s:2 c:2":         "2 pending=false told=[1 2]", // the watch was faster than the answer
		"c:1 s:2 s:1":         "1 pending=false told=[1 2 1]",
		"s:1":                 "1 pending=true told=[1]",
		"c:1 c:":              " pending=false told=[1 ]",
		"c: s:1 c:":           "1 pending=true told=[1]",
		"c:1 s:2 u:2 c:2 c:1": "1 pending=false told=[1 2 1]",
	} {
		s, told := play(t, events)
		text := ""
		if d := s.Twins["p"].Desired; d != nil {
			text = d.Value
		}
		if got := fmt.Sprintf("%s pending=%v told=%v", text, s.Twins["p"].Pending, told); got != want {
			t.Errorf("%s: %s, want %s", events, got, want)
		}
	}
}

func TestValuesAreNotChangedInPlace(t *testing.T) {
	s, _ := play(t, "c:1")
	before := s.Clone()
	_ = Set(s, "p", value("2"))
	_, _ = Report(s, "p", value("3"), value("3"))
	_, _ = Spec(s, nil)
	_ = Uploaded(s, "p", value("9"))
	if !reflect.DeepEqual(s, before) {
		t.Errorf("%v became %v", before, s)
	}
}

func TestReport(t *testing.T) {
	at := func(text, time string) *v1beta1.Value {
		return &v1beta1.Value{Value: text, Metadata: map[string]string{"timestamp": time}}
	}
	s, changed := Report(State{}, "p", at("1", "5"), nil)
	if !changed || s.Twins["p"].Actual.Edge != 1 {
		t.Error("a first value is no change")
	}
	s, changed = Report(s, "p", at("1", "6"), nil)
	if changed || s.Twins["p"].Reported.Metadata["timestamp"] != "6" || s.Twins["p"].Actual.Edge != 1 {
		t.Error("a new time is a change, or lost")
	}
	s, changed = Report(s, "p", nil, at("1", "4"))
	if !changed || s.Twins["p"].Reported.Value != "1" {
		t.Error("what was taken up is no change")
	}
	status := Status(s)
	if len(status.Twins) != 1 || status.Twins[0].ObservedDesired.Value != "1" || status.Twins[0].Reported.Metadata["timestamp"] != "6" {
		t.Errorf("%+v", status)
	}
}

func TestPropertiesComeAndGo(t *testing.T) {
	s := State{Twins: map[string]Twin{"local": {Local: true}, "old": {Reported: value("1")}, "set": {Pending: true, Desired: value("2")}}}
	s, changed := Spec(s, []v1beta1.Property{{Name: "a", Desired: value("1")}, {Name: "b"}})
	var names []string
	for name := range s.Twins {
		names = append(names, name)
	}
	if len(names) != 4 || s.Twins["old"].Reported != nil || fmt.Sprint(changed) != "[a]" {
		t.Errorf("%v, changed %v", names, changed)
	}
}
