package placement

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

func template(t testing.TB, text string) Template {
	t.Helper()
	var spec map[string]any
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	out, err := NewTemplate(nil, spec)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func grid(t testing.TB) *Set {
	return &Set{
		Kind: Deployment, Namespace: "default", Name: "web", Key: "zone", Owner: map[string]any{"uid": "1"}, Default: "default", UnitLabel: LabelUnit,
		Marks: map[string]string{"superedge.io/grid-selector": "web"}, Labels: map[string]string{"superedge.io/grid-uniq-key": "zone"},
		Templates: map[string]Template{"default": template(t, `{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"nodeSelector":{"disk":"ssd"}}}}`)},
	}
}

func units(names ...string) map[string]Unit {
	out := map[string]Unit{}
	for _, n := range names {
		out[n] = Unit{Nodes: 1, Ready: 1}
	}
	return out
}

// made is what lives after a plan was carried out for these units.
func made(s *Set, complete bool, names ...string) map[string]Live {
	out := map[string]Live{}
	for _, n := range names {
		t, _, _ := s.TemplateOf(n)
		out[s.WorkloadName(n)] = Live{Name: s.WorkloadName(n), Unit: n, Hash: t.Hash, Complete: complete}
	}
	return out
}

func TestUnitsComeAndGo(t *testing.T) {
	s := grid(t)
	live := made(s, true, "a", "old")
	p := Decide(s, units("a", "b", ""), live, nil)
	if !slices.Equal(p.Create, []string{"b"}) || !slices.Equal(p.Delete, []string{"web-old"}) || len(p.Update)+len(p.Verify)+len(p.Problems) > 0 {
		t.Errorf("%+v", p)
	}
	// Only what changed is looked at.
	p = Decide(s, units("a", "b", "c"), live, []string{"c"})
	if !slices.Equal(p.Create, []string{"c"}) || p.Delete != nil {
		t.Errorf("%+v", p)
	}
	if p = Decide(s, units("a"), live, []string{"old"}); !slices.Equal(p.Delete, []string{"web-old"}) || p.Create != nil {
		t.Errorf("%+v", p)
	}
	// Pools exist with or without nodes.
	s.Only = map[string]bool{"p": true}
	if p = Decide(s, units("a"), nil, nil); !slices.Equal(p.Create, []string{"p"}) {
		t.Errorf("%+v", p)
	}
}

func TestNothingIsShared(t *testing.T) {
	s := grid(t)
	a, _ := s.Render("a")
	b, _ := s.Render("b")
	selector := func(w map[string]any) map[string]any {
		pod := w["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
		return pod["nodeSelector"].(map[string]any)
	}
	if want := map[string]any{"disk": "ssd", "zone": "a"}; !reflect.DeepEqual(selector(a), want) || selector(b)["zone"] != "b" {
		t.Errorf("%v, %v", selector(a), selector(b))
	}
	selector(a)["zone"] = "changed"
	c, _ := s.Render("a")
	if selector(c)["zone"] != "a" || selector(b)["zone"] != "b" {
		t.Error("units share a map")
	}
	data, _ := json.Marshal(b)
	for _, part := range []string{
		`"name":"web-b"`, `"matchLabels":{"a":"b","grid.kedge.io/unit":"b","superedge.io/grid-selector":"web"}`,
		`"labels":{"a":"b","grid.kedge.io/unit":"b","superedge.io/grid-selector":"web"}`, `"superedge.io/grid-uniq-key":"zone"`,
	} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
	if strings.Contains(string(data), "replicas") {
		t.Error("replicas that the template leaves out are set")
	}
}

func TestTemplates(t *testing.T) {
	s := grid(t)
	s.Templates["next"] = template(t, `{"replicas":2}`)
	s.ByUnit = map[string]string{"b": "next", "c": "missing"}
	live := made(s, true, "a", "b")
	live["web-a"] = Live{Name: "web-a", Unit: "a", Hash: "old"}
	live["web-b"] = Live{Name: "web-b", Unit: "b", Hash: s.Templates["next"].Hash, Edited: true}
	p := Decide(s, units("a", "b", "c"), live, nil)
	if !slices.Equal(p.Update, []string{"a"}) || !slices.Equal(p.Verify, []string{"b"}) || !strings.Contains(p.Problems["c"], `"missing"`) {
		t.Errorf("%+v", p)
	}
	if got := Unused([]string{"z", "next", "default", "y"}, s.ByUnit, "default"); !slices.Equal(got, []string{"y", "z"}) {
		t.Error(got)
	}
}

func TestProblems(t *testing.T) {
	s := grid(t)
	live := map[string]Live{"web-x": {Name: "web-x", Foreign: "DeploymentGrid other"}}
	p := Decide(s, units("Shop_1", strings.Repeat("a", 61), "x"), live, nil)
	if len(p.Create) > 0 || len(p.Delete) > 0 || len(p.Problems) != 3 || !strings.Contains(p.Problems["x"], "DeploymentGrid other") ||
		!strings.Contains(p.Problems["Shop_1"], "label zone") {
		t.Errorf("%+v", p)
	}
	s.Kind = StatefulSet
	if p = Decide(s, units("a.b"), nil, nil); len(p.Problems) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestRolloutGoesUnitByUnit(t *testing.T) {
	s := grid(t)
	s.Rollout = ReadRollout(map[string]string{AnnotationMaxUnavailable: "1"})
	names := []string{"a", "b", "c", "d"}
	all := units(names...)
	all["d"] = Unit{Nodes: 1}
	live := made(s, true, names...)
	s.Templates["default"] = template(t, `{"replicas":1}`)
	p := Decide(s, all, live, []string{"c"})
	if !slices.Equal(p.Update, []string{"a"}) || p.Held["b"] != "waits for unit a" || p.Held["d"] != "no node of the unit is ready" {
		t.Errorf("%+v", p)
	}
	// While a is not ready nothing goes on; new units still get their workloads.
	l := live["web-a"]
	l.Hash, l.Complete = s.Templates["default"].Hash, false
	live["web-a"] = l
	all["e"] = Unit{Nodes: 1, Ready: 1}
	if p = Decide(s, all, live, nil); len(p.Update) != 0 || !slices.Equal(p.Create, []string{"e"}) || p.Held["c"] != "waits for unit a" {
		t.Errorf("%+v", p)
	}
	if sum := Sum(s, all, live); sum.Waiting != "a" || sum.Units != 5 || sum.UpdatedUnits != 1 || sum.ReadyUnits != 3 {
		t.Errorf("%+v", sum)
	}
	l.Complete = true
	live["web-a"] = l
	live["web-e"] = made(s, true, "e")["web-e"]
	if p = Decide(s, all, live, nil); !slices.Equal(p.Update, []string{"b"}) {
		t.Errorf("%+v", p)
	}
	// What was broken before may be repaired.
	l = live["web-c"]
	l.Complete = false
	live["web-c"] = l
	if p = Decide(s, all, live, nil); !slices.Equal(p.Update, []string{"b", "c"}) {
		t.Errorf("%+v", p)
	}
	s.Rollout.Paused = true
	if p = Decide(s, all, live, nil); len(p.Update) != 0 || p.Held["b"] != "the grid is paused" {
		t.Errorf("%+v", p)
	}
}

func TestReadRollout(t *testing.T) {
	for text, want := range map[string]Rollout{"3": {Max: 3}, "20%": {Max: 20, Percent: true}, "0": {Max: 1}, "x": {Max: 1}, "101%": {Max: 1}} {
		a := map[string]string{AnnotationMaxUnavailable: text}
		if got := ReadRollout(a); got != want {
			t.Errorf("%s: %+v", text, got)
		}
		if _, err := CheckRollout(a); (err != nil) != (want == Rollout{Max: 1}) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if (Rollout{Max: 10, Percent: true}).budget(5) != 1 || (Rollout{Max: 50, Percent: true}).budget(5) != 2 || (Rollout{}).budget(5) != 5 {
		t.Error("wrong budget")
	}
	if name, err := CheckRollout(map[string]string{AnnotationPaused: "yes"}); err == nil || name != AnnotationPaused {
		t.Error("a pause that is no truth was taken")
	}
}

// FuzzDecide: whatever the units and what lives, a plan touches no foreign workload, makes no unit twice, and carried out leaves nothing to do.
func FuzzDecide(f *testing.F) {
	f.Add("a b c", "a x", "1", "web")
	f.Add("Shop_1 b", "b b", "50%", "w.x")
	f.Add("a b-c", "b", "", "web-a")
	f.Fuzz(func(t *testing.T, present, living, rollout, name string) {
		s := grid(t)
		s.Name = name
		if rollout != "" {
			s.Rollout = ReadRollout(map[string]string{AnnotationMaxUnavailable: rollout})
		}
		all := units(strings.Fields(present)...)
		live := made(s, true, strings.Fields(living)...)
		for i, unit := range strings.Fields(living) {
			l := live[s.WorkloadName(unit)]
			if i%3 == 1 {
				l.Hash = "old"
			}
			if i%5 == 4 {
				l.Foreign = "somebody"
			}
			live[l.Name] = l
		}
		for range len(live) + 2 {
			p := Decide(s, all, live, nil)
			for _, n := range p.Delete {
				if live[n].Foreign != "" {
					t.Fatalf("deletes %s of %s", n, live[n].Foreign)
				}
				delete(live, n)
			}
			for _, unit := range slices.Concat(p.Create, p.Update) {
				if l := live[s.WorkloadName(unit)]; l.Foreign != "" {
					t.Fatalf("writes %s of %s", l.Name, l.Foreign)
				}
				w, err := s.Render(unit)
				if err != nil {
					t.Fatal(err)
				}
				runtime.DeepCopyJSON(w)
				tmpl, _, _ := s.TemplateOf(unit)
				live[s.WorkloadName(unit)] = Live{Name: s.WorkloadName(unit), Unit: unit, Hash: tmpl.Hash, Complete: true}
			}
		}
		if p := Decide(s, all, live, nil); len(p.Create)+len(p.Update)+len(p.Delete) > 0 {
			t.Fatalf("it does not settle: %+v", p)
		}
	})
}

func BenchmarkOneUnitOfAThousand(b *testing.B) {
	s := grid(b)
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("unit-%d", i))
	}
	all, live := units(names...), made(s, true, names...)
	for b.Loop() {
		Decide(s, all, live, []string{"unit-7"})
	}
}
