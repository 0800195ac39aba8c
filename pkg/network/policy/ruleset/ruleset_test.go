package ruleset

import (
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

func set(elements ...string) Set {
	s := Set{Type: "ipv4_addr", Elements: map[string]string{}}
	for _, e := range elements {
		s.Elements[e] = ""
	}
	return s
}

func first() Table {
	return Table{Name: "t", Sets: map[string]Set{
		"a": set("10.0.0.1", "10.0.0.2"), "gone": set("10.0.0.9"),
		"verdicts": {Type: "ipv4_addr", Verdicts: true, Elements: map[string]string{"10.0.0.1": "goto one", "10.0.0.2": "goto one"}},
	}, Chains: map[string]Chain{
		"base": {Hook: "type filter hook forward priority filter;", Rules: []string{"ip saddr vmap @verdicts"}},
		"one":  {Rules: []string{"ip saddr @gone accept", "drop"}},
		"same": {Rules: []string{"accept"}},
	}}
}

func second() Table {
	t := first()
	delete(t.Sets, "gone")
	t.Sets["a"] = set("10.0.0.2", "10.0.0.3")
	t.Sets["verdicts"].Elements["10.0.0.2"] = "goto two"
	delete(t.Sets["verdicts"].Elements, "10.0.0.1")
	delete(t.Chains, "one")
	t.Chains["two"] = Chain{Rules: []string{"ip saddr @a accept", "drop"}}
	t.Chains["base"] = Chain{Hook: t.Chains["base"].Hook, Rules: []string{"ip saddr vmap @verdicts", "accept"}}
	return t
}

func TestScriptsGolden(t *testing.T) {
	golden.Check(t, "create.nft", first().Create())
	golden.Check(t, "change.nft", second().From(first()))
}

func TestNothingToDo(t *testing.T) {
	if got := first().From(first()); got != "" {
		t.Errorf("equal tables differ by %q", got)
	}
}
