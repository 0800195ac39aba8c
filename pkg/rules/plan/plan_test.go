package plan

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
)

func endpoint(name, kind, port string) *v1.RuleEndpoint {
	e := &v1.RuleEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.RuleEndpointSpec{RuleEndpointType: kind}}
	if port != "" {
		e.Spec.Properties = map[string]string{v1.KeyServicePort: port}
	}
	return e
}

func rule(name, source, target string, from, to map[string]string) *v1.Rule {
	return &v1.Rule{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1.RuleSpec{Source: source, SourceResource: from, Target: target, TargetResource: to},
	}
}

func endpoints() []*v1.RuleEndpoint {
	return []*v1.RuleEndpoint{
		endpoint("rest", v1.Rest, ""), endpoint("bus", v1.EventBus, ""), endpoint("service", v1.ServiceBus, "8080"), endpoint("portless", v1.ServiceBus, ""),
		endpoint("strange", "smoke", ""), endpoint("far", v1.ServiceBus, "70000"),
	}
}

type m = map[string]string

func TestCompileSaysWhatIsWrong(t *testing.T) {
	path, topic := m{"path": "/a"}, m{"topic": "t"}
	from, to := m{"topic": "t", "node_name": "n1"}, m{"resource": "https://a.example/x"}
	for _, tc := range []struct {
		rule *v1.Rule
		want string // part of the reason, or empty
	}{
		{rule("ok", "rest", "bus", path, topic), ""},
		{rule("ok", "rest", "service", m{"path": "a/{b}/c/"}, m{"path": "/x"}), ""},
		{rule("ok", "bus", "rest", from, to), ""},
		{rule("ok", "portless", "rest", m{"target_url": "http://x", "node_name": "n1"}, to), ""},
		{rule("a", "none", "bus", path, topic), "spec.source: Not found: \"RuleEndpoint none"},
		{rule("a", "rest", "none", path, topic), "spec.target: Not found"},
		{rule("a", "rest", "rest", path, to), "not from rest to rest"},
		{rule("a", "bus", "service", from, path), "not from eventbus to servicebus"},
		{rule("a", "strange", "bus", path, topic), "not from smoke to eventbus"},
		{rule("a", "rest", "bus", m{}, topic), "spec.sourceResource[path]: Required"},
		{rule("a", "rest", "bus", m{"path": "/a/../b"}, topic), "spec.sourceResource[path]: Invalid"},
		{rule("a", "rest", "bus", m{"path": "/a{b}"}, topic), "whole segment"},
		{rule("a", "rest", "bus", path, m{"topic": "a/#"}), "spec.targetResource[topic]: Invalid"},
		{rule("a", "rest", "bus", path, m{"topic": "$hw/events/device/d/twin/update"}), "the node's own"},
		{rule("a", "bus", "rest", m{"topic": "a/#/b", "node_name": "n1"}, to), "spec.sourceResource[topic]"},
		{rule("a", "bus", "rest", m{"topic": "a", "node_name": "No"}, to), "spec.sourceResource[node_name]"},
		{rule("a", "bus", "rest", from, m{"resource": "file:///etc/passwd"}), "spec.targetResource[resource]"},
		{rule("a", "portless", "rest", m{"node_name": "n1"}, to), "spec.sourceResource[target_url]: Required"},
		{rule("a", "rest", "portless", path, path), "service_port"},
		{rule("a", "rest", "far", path, path), "spec.properties[service_port]: Invalid"},
		{rule("a", "rest", "service", path, m{}), "spec.targetResource[path]: Required"},
		{rule("a", "rest", "service", path, m{"path": "/a?b"}), "spec.targetResource[path]: Invalid"},
	} {
		routes, problems := Compile(endpoints(), []*v1.Rule{tc.rule})
		switch {
		case tc.want == "" && len(routes) != 1:
			t.Errorf("%+v: %+v", tc.rule.Spec, problems)
		case tc.want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Reason, tc.want)):
			t.Errorf("%+v: %+v, want %s", tc.rule.Spec, problems, tc.want)
		}
	}
}

func TestOfTwoWithTheSameSourceTheOlderWorks(t *testing.T) {
	first, second := rule("z", "rest", "bus", m{"path": "/a/{x}"}, m{"topic": "one"}), rule("b", "rest", "bus", m{"path": "a/{y}/"}, m{"topic": "two"})
	second.CreationTimestamp = metav1.NewTime(first.CreationTimestamp.Add(time.Hour))
	routes, problems := Compile(endpoints(), []*v1.Rule{second, first})
	if len(routes) != 1 || routes[0].Name != "z" || len(problems) != 1 || !strings.Contains(problems[0].Reason, "rule default/z has the same") {
		t.Errorf("%+v %+v", routes, problems)
	}
	if r, ok := Find(routes, "default/z"); !ok || r.Topic != "one" {
		t.Error("the rule is not found by its key")
	}
	if _, ok := Find(routes, "default/a"); ok {
		t.Error("a rule that is not there is found")
	}
}

func TestTheMostParticularPathWins(t *testing.T) {
	routes, problems := Compile(endpoints(), []*v1.Rule{
		rule("all", "rest", "bus", m{"path": "{any}"}, m{"topic": "all"}), rule("a", "rest", "bus", m{"path": "/a"}, m{"topic": "a/"}),
		rule("ab", "rest", "bus", m{"path": "/a/b"}, m{"topic": "ab"}), rule("ax", "rest", "bus", m{"path": "/a/{x}"}, m{"topic": "ax"}),
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for path, want := range map[string]string{
		"/n1/default/a": "a/", "/n1/default/a/b": "ab", "n1/default/a/b/c/": "ab/c", "/n1/default/a/x/y": "ax/y", "/n1/default/z/y": "all/y",
		"/n1/other/a": "", "/n1/default": "", "/n1/default/a/../b": "", "/n1/default//a": "", "/n1/default/a\n": "", "": "", "/": "",
	} {
		got := ""
		if q, ok := ReadRequest(path); ok {
			if r, rest, ok := Match(routes, q); ok {
				got = Join(r.Topic, rest)
				if len(rest) == 0 {
					got = r.Topic
				}
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestHears(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/+", "a/b", true}, {"a/+", "a/b/c", false}, {"a/+", "a", false},
		{"a/#", "a/b/c", true}, {"a/#", "a", true}, {"a/#", "ab", false}, {"#", "a/b", true}, {"+/b/#", "x/b", true}, {"a/+/c", "a//c", true}, {"a/", "a", false},
	} {
		if got := Hears(tc.filter, tc.topic); got != tc.want {
			t.Errorf("%s hears %s: %v", tc.filter, tc.topic, got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"/n1/default/a/b", "n/d/%2e", "/n1/default/a/+/#", "///", "/n/d/é/{x}"} {
		f.Add(s, "/a/{b}", "topic/x")
	}
	f.Fuzz(func(t *testing.T, path, pattern, topic string) {
		routes, _ := Compile(endpoints(), []*v1.Rule{
			rule("a", "rest", "bus", m{"path": pattern}, m{"topic": topic}), rule("b", "rest", "service", m{"path": pattern + "/s"}, m{"path": topic}),
			rule("c", "bus", "rest", m{"topic": topic, "node_name": "n1"}, m{"resource": "http://x/" + path}),
		})
		for _, r := range routes {
			if r.Topic != "" && BadTopic(r.Topic) != "" || r.Path != "" && (!strings.HasPrefix(r.Path, "/") || unclean(r.Path)) {
				t.Fatalf("%+v", r)
			}
			if r.Filter != "" {
				Hears(r.Filter, path)
			}
		}
		q, ok := ReadRequest(path)
		if !ok {
			return
		}
		r, rest, ok := Match(routes, q)
		if !ok {
			return
		}
		if to := Join(r.Path, rest); r.Port != 0 && (!strings.HasPrefix(to, "/") || unclean(to)) {
			t.Fatalf("%q leads to %q", path, to)
		}
	})
}
