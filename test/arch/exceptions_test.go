package arch

import (
	"strings"
	"testing"
)

// exceptions are breaches that stay, each with its reason. The list only shrinks: an exception that is not needed any more
// fails the test.
func exceptions() map[string]string {
	return map[string]string{
		"package size pkg/cli":                            "one file a command is the rule of this package, and commands are many",
		"init function pkg/twin/dmi/api/api.pb.go":        "generated: messages are registered before main",
		"package variable test/golden/golden.go:update":   "flags of a test binary are registered before it parses them",
		"package variable pkg/version/version.go:version": "written by the linker",
		"package variable pkg/version/version.go:commit":  "written by the linker",
		"package variable pkg/version/version.go:date":    "written by the linker",
	}
}

// apply removes the excepted violations and adds one for each exception that nothing breaks.
func apply(vs []violation, exceptions map[string]string) []violation {
	var left []violation
	used := map[string]bool{}
	for _, v := range vs {
		if reason, ok := exceptions[v.key()]; ok && reason != "" {
			used[v.key()] = true
			continue
		}
		left = append(left, v)
	}
	for key := range exceptions {
		if !used[key] {
			left = append(left, violation{"exception", key, "not needed any more, or without a reason: remove it"})
		}
	}
	return left
}

func TestHouseRules(t *testing.T) {
	files := load(t)
	var vs []violation
	vs = append(vs, checkLayers(files, house(t))...)
	vs = append(vs, checkFences(files, fences())...)
	vs = append(vs, checkSizes(files)...)
	vs = append(vs, checkComments(files)...)
	vs = append(vs, checkState(files)...)
	vs = append(vs, checkNames(files)...)
	vs = append(vs, checkCalls(files)...)
	vs = append(vs, checkExported(files)...)
	vs = append(vs, checkWords(files)...)
	for _, v := range dedupe(apply(vs, exceptions())) {
		t.Errorf("%s: %s: %s", v.rule, v.where, v.what)
	}
}

func TestEveryPlaceIsThere(t *testing.T) {
	there := packages(load(t))
	for dir := range house(t) {
		if _, ok := there[dir]; !ok {
			t.Errorf("%s is in the table of packages and not in the repository: remove the line", dir)
		}
	}
}

func TestExceptionsOnlyShrink(t *testing.T) {
	vs := []violation{{"a", "x", ""}, {"b", "y", ""}}
	left := apply(vs, map[string]string{"a x": "reason", "c z": "stale", "b y": ""})
	var got []string
	for _, v := range dedupe(left) {
		got = append(got, v.key())
	}
	if strings.Join(got, ", ") != "b y, exception b y, exception c z" {
		t.Errorf("got %q", got)
	}
}
