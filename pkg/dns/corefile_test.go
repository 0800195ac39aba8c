package dns

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/coredns/caddy/caddyfile"

	"github.com/kedge-io/kedge/test/golden"
)

func spec() corefileSpec {
	return corefileSpec{
		guard: "kedge-guard", cluster: "kedge-cluster", domain: "cluster.local", port: 53,
		listen:    []netip.Addr{netip.MustParseAddr("10.43.0.10")},
		upstreams: []string{"192.168.1.1", "192.168.1.2"},
	}
}

func TestRenderCorefile(t *testing.T) {
	plain := spec()
	golden.Check(t, "plain.corefile", renderCorefile(plain))

	alone := spec()
	alone.upstreams = nil
	alone.domain, alone.port = "edge.example", 5300
	alone.listen = append(alone.listen, netip.MustParseAddr("fd43::a"))
	golden.Check(t, "no-upstream-dual-stack.corefile", renderCorefile(alone))

	full := spec()
	full.custom = parseCustom(map[string]string{
		"a.override": "rewrite name exact plc.site plc.default.svc.cluster.local\ncache 10\nready :1\n",
		"b.override": "forward corp.example 10.9.9.9 {\n  max_concurrent 10\n}\nhosts {\n  10.0.0.5 camera.site # a comment\n  fallthrough\n}\n",
		"c.server":   "site.example:53 other.example {\n  errors\n  template IN A {\n    match \"^(?P<a>[a-z]+)[.]site[.]example[.]$\"\n    answer \"{{ .Name }} 60 IN A 10.0.0.9\"\n  }\n}\n",
		"notes.txt":  "not read }{",
	})
	if full.custom.err != nil {
		t.Fatal(full.custom.err)
	}
	if want := []string{"ready"}; !reflect.DeepEqual(full.custom.ignored, want) {
		t.Errorf("ignored %q, want %q", full.custom.ignored, want)
	}
	golden.Check(t, "custom.corefile", renderCorefile(full))
}

func TestParseCustomRefuses(t *testing.T) {
	for _, c := range []struct{ name, key, text, want string }{
		{"unknown plugin", "a.override", "route53 x\n", "Unknown directive 'route53'"},
		{"server in override", "a.override", "log\n}\nx.example {\n log\n", "move server blocks"},
		{"unbalanced", "a.server", "x.example {\n  hosts {\n", "a.server"},
		{"file import", "a.server", "import /etc/passwd\n", "import is not available"},
		{"nested import", "a.override", "hosts {\n  import /etc/passwd\n}\n", "import is not available"},
		{"environment", "a.override", "rewrite name x {$K3S_TOKEN}\n", "environment variables"},
		{"bind", "a.server", "x.example {\n bind 0.0.0.0\n}\n", "bind is not available"},
		{"cluster zone", "a.server", "x.example {\n kubernetes\n}\n", "the cluster zone is always served"},
	} {
		got := parseCustom(map[string]string{c.key: c.text})
		if got.err == nil || !strings.Contains(got.err.Error(), c.want) || !strings.Contains(got.err.Error(), c.key) {
			t.Errorf("%s: error %v, want one with %q and the key", c.name, got.err, c.want)
		}
	}
}

func TestCustomVersion(t *testing.T) {
	a := parseCustom(map[string]string{"a.override": "log"}).version
	b := parseCustom(map[string]string{"a.override": "log "}).version
	again := parseCustom(map[string]string{"a.override": "log"}).version
	if a == b || a != again || a == "" {
		t.Errorf("versions %q %q %q", a, b, again)
	}
	if none := parseCustom(nil).version; none != "" {
		t.Errorf("version of nothing is %q", none)
	}
}

// FuzzRenderedTokens checks that what is parsed and written back parses to the same directives.
func FuzzRenderedTokens(f *testing.F) {
	for _, s := range []string{
		"log", "rewrite name a b\nrewrite name c d", "hosts {\n 10.0.0.1 a\n fallthrough\n}",
		"template IN A {\n answer \"{{ .Name }} 60 # IN\"\n}", "template IN A {\n answer \"a\nb\"\n}\nlog", `log "a\"b \c"`, `log ""`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first := parseCustom(map[string]string{"a.override": text})
		if first.err != nil {
			t.Skip()
		}
		var b strings.Builder
		writeDirectives(&b, first.override)
		second := parseCustom(map[string]string{"a.override": b.String()})
		if second.err != nil {
			t.Fatalf("%q is written as %q: %v", text, b.String(), second.err)
		}
		if got, want := texts(second.override), texts(first.override); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is written as %q: %q, want %q", text, b.String(), got, want)
		}
	})
}

func texts(directives map[string][]caddyfile.Token) map[string][]string {
	out := map[string][]string{}
	for name, tokens := range directives {
		for _, t := range tokens {
			out[name] = append(out[name], t.Text)
		}
	}
	return out
}
