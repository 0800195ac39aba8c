package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

func prefixes(in ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, s := range in {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func TestConflistGolden(t *testing.T) {
	for name, cidrs := range map[string][]netip.Prefix{
		"ipv4.conflist": prefixes("10.42.3.0/24"),
		"dual.conflist": prefixes("10.42.3.0/24", "fd42:3::/64"),
	} {
		got, err := conflist(cidrs, map[string]int{"dual.conflist": 1430}[name], "/d/ipam", "/var/lib/kubelet/pods")
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, name, string(got))
	}
}

func TestMasqueradeGolden(t *testing.T) {
	golden.Check(t, "masquerade.nft", masqueradeRules(prefixes("10.42.0.0/16", "fd42::/48")))
}

func TestProxyArgumentsGolden(t *testing.T) {
	c := ProxyConfig{NodeName: "edge1", NodeIP: netip.MustParseAddr("10.0.0.1"), Kubeconfig: "/d/proxy", ClusterCIDRs: prefixes("10.42.0.0/16"), ExtraArgs: []string{"v=2"}}
	golden.Check(t, "kube-proxy.txt", strings.Join(proxyArgs(c), "\n")+"\n")
}

func TestConflistIsWrittenOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	p, err := NewPods(PodConfig{Backend: "bridge", CNIConfDir: filepath.Join(dir, "net.d"), IPAMDir: filepath.Join(dir, "ipam")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.writeConflist(prefixes("10.42.3.0/24")); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(p.conflistPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.writeConflist(prefixes("10.42.3.0/24")); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(p.conflistPath())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) {
		t.Error("the same configuration was written again")
	}
	left, err := os.ReadDir(p.cfg.CNIConfDir)
	if err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}

func TestParsePrefixesNamesTheBadOne(t *testing.T) {
	if _, err := parsePrefixes([]string{"10.42.0.0/24", "nonsense"}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}
