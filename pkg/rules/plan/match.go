package plan

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
)

// wild is what a {name} in a pattern becomes when only the shape counts.
const wild = "{}"

func isWild(segment string) bool {
	return strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}")
}

func anonymous(path []string) []string {
	out := slices.Clone(path)
	for i := range out {
		if isWild(out[i]) {
			out[i] = wild
		}
	}
	return out
}

// unclean says whether a path has segments that mean another place, or none.
func unclean(path string) bool {
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if s == "." || s == ".." || s == "" && strings.Trim(path, "/") != "" {
			return true
		}
	}
	return strings.ContainsFunc(path, unicode.IsControl) || !utf8.ValidString(path)
}

func readPattern(at *field.Path, path string) ([]string, field.ErrorList) {
	trimmed := strings.Trim(path, "/")
	if trimmed == "" {
		return nil, field.ErrorList{field.Required(at, "the path behind node and namespace, for example /orders")}
	}
	if unclean(trimmed) || strings.ContainsAny(trimmed, "?#%\\") {
		return nil, field.ErrorList{field.Invalid(at, path, "must be a path without empty segments, . and .. and without ?, #, %")}
	}
	segments := strings.Split(trimmed, "/")
	for _, s := range segments {
		if strings.ContainsAny(s, "{}") && (!isWild(s) || strings.ContainsAny(s[1:len(s)-1], "{}") || len(s) == 2) {
			return nil, field.ErrorList{field.Invalid(at, path, "{name} must be a whole segment")}
		}
	}
	return segments, nil
}

// Request is a request to the server: /<node>/<namespace>/<path>.
type Request struct {
	Node, Namespace string
	// Path has at least one segment.
	Path []string
}

// ReadRequest takes a path apart; ok is false when it is none of a request.
func ReadRequest(path string) (r Request, ok bool) {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if len(path) > maxTopic || path == "" || unclean(path) {
		return Request{}, false
	}
	segments := strings.Split(path, "/")
	if len(segments) < 3 {
		return Request{}, false
	}
	return Request{Node: segments[0], Namespace: segments[1], Path: segments[2:]}, true
}

// Match finds the rule that a request is for, the most particular one first, and returns what the request has behind the rule's path.
func Match(routes []Route, q Request) (found Route, rest []string, ok bool) {
	best := -1
	for _, r := range routes {
		if r.Source != v1.Rest || r.Namespace != q.Namespace || len(r.path) > len(q.Path) {
			continue
		}
		if score := r.score(q.Path); score > best {
			found, rest, ok, best = r, q.Path[len(r.path):], true, score
		}
	}
	return found, rest, ok
}

// score is -1 for no match; longer paths and fixed segments count more.
func (r Route) score(path []string) int {
	score := 0
	for i, s := range r.path {
		switch {
		case isWild(s):
			score += 1000
		case s == path[i]:
			score += 1001
		default:
			return -1
		}
	}
	return score
}

// Join appends what a request has behind the rule's path to a topic or a path.
func Join(base string, rest []string) string {
	if len(rest) == 0 {
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.Join(rest, "/")
}

// BadTopic says why nothing can be published to a topic, or "".
func BadTopic(topic string) string {
	switch {
	case topic == "":
		return "must name a topic"
	case strings.ContainsAny(topic, "+#"):
		return "must be one topic, without + and #"
	}
	return badTopicText(topic)
}

func badTopicText(topic string) string {
	switch {
	case len(topic) > maxTopic:
		return "is too long"
	case strings.HasPrefix(topic, "$"):
		return "must not begin with $: such topics are the node's own"
	case strings.ContainsFunc(topic, unicode.IsControl) || !utf8.ValidString(topic):
		return "must be text"
	}
	return ""
}

func badFilter(filter string) string {
	if filter == "" {
		return "must name a topic; the bus of the node has it behind the namespace"
	}
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) || strings.Contains(l, "+") && l != "+" {
			return "+ must be a whole level, and # the last one"
		}
	}
	return badTopicText(filter)
}

// Hears says whether a message on topic is for a filter.
func Hears(filter, topic string) bool {
	for {
		f, moreFilter, deeperFilter := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, moreTopic, deeperTopic := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !deeperTopic {
			return !deeperFilter || moreFilter == "#"
		}
		if !deeperFilter {
			return false
		}
		filter, topic = moreFilter, moreTopic
	}
}
