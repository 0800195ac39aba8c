package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/coredns/caddy/caddyfile"
)

// corefileSpec is everything a Corefile is made of.
type corefileSpec struct {
	guard, cluster string // names under which our two plugins are registered
	domain         string
	listen         []netip.Addr
	port           int
	upstreams      []string
	custom         custom
}

// renderCorefile returns the whole configuration. The order of the lines has no meaning to CoreDNS, except that the
// first of several forward lines wins: custom ones come before ours.
func renderCorefile(s corefileSpec) string {
	var b strings.Builder
	bind := bindLine(s.listen)
	fmt.Fprintf(&b, ".:%d {\n%s    %s\n", s.port, bind, s.guard)
	for _, p := range []struct{ name, text string }{
		{"errors", errorsBlock},
		{"loadbalance", "    loadbalance\n"},
		{"cache", cacheBlock(s.domain)},
	} {
		if _, replaced := s.custom.override[p.name]; !replaced {
			b.WriteString(p.text)
		}
	}
	fmt.Fprintf(&b, "    %s %s in-addr.arpa ip6.arpa {\n%s    }\n", s.cluster, s.domain, clusterOptions)
	writeDirectives(&b, s.custom.override)
	b.WriteString(forwardBlock(s.upstreams))
	b.WriteString("}\n")
	for _, server := range s.custom.servers {
		fmt.Fprintf(&b, "%s {\n%s", strings.Join(server.Keys, " "), bind)
		writeDirectives(&b, server.Tokens)
		b.WriteString("}\n")
	}
	return b.String()
}

// errorsBlock reports the first failure of a kind and then one line every ten minutes: a node that is cut off fails
// every outside name.
const errorsBlock = `    errors {
        consolidate 10m .* warning show_first
    }
`

// clusterOptions are the options of the cluster zone. A short TTL costs nothing: the answers come from memory.
const clusterOptions = `        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
`

// cacheBlock caches outside names only, because cluster names are answered from memory anyway and must be fresh.
// A name whose server is out of reach keeps its last answer for a day.
func cacheBlock(domain string) string {
	return fmt.Sprintf(`    cache 3600 {
        success 2048
        denial 1024 30
        serve_stale 24h verify 1s 30s 30s
        disable success %[1]s
        disable denial %[1]s
    }
`, domain)
}

// forwardBlock returns the forward plugin for the upstreams, in their order; nothing without upstreams, and then the
// end of the plugin chain answers SERVFAIL.
func forwardBlock(upstreams []string) string {
	if len(upstreams) == 0 {
		return ""
	}
	return fmt.Sprintf(`    forward . %s {
        policy sequential
        max_concurrent 1000
        health_check 1s
        failfast_all_unhealthy_upstreams
    }
`, strings.Join(upstreams, " "))
}

func bindLine(listen []netip.Addr) string {
	var b strings.Builder
	b.WriteString("    bind")
	for _, a := range listen {
		b.WriteString(" " + a.String())
	}
	b.WriteString("\n")
	return b.String()
}

// writeDirectives writes parsed directives back as text, in the order of their names; lines stay lines.
func writeDirectives(b *strings.Builder, directives map[string][]caddyfile.Token) {
	names := make([]string, 0, len(directives))
	for name := range directives {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for i, t := range directives[name] {
			if i == 0 || !sameLine(directives[name][i-1], t) {
				if i > 0 {
					b.WriteString("\n")
				}
				b.WriteString("   ")
			}
			b.WriteString(" " + quoteToken(t.Text))
		}
		b.WriteString("\n")
	}
}

// sameLine says whether b continues the line of a; a token in quotes may hold line breaks.
func sameLine(a, b caddyfile.Token) bool {
	return a.File == b.File && a.Line+strings.Count(a.Text, "\n") == b.Line
}

// quoteToken writes a token so that it is read back as it was: only a quote has an escape in this format.
func quoteToken(text string) string {
	special := func(r rune) bool { return r == '#' || unicode.IsSpace(r) }
	if text != "" && text[0] != '"' && !strings.ContainsFunc(text, special) {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
}
