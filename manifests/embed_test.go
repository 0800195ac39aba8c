package manifests

import (
	"io/fs"
	"net"
	"strings"
	"testing"
)

func TestVariables(t *testing.T) {
	four, six := net.IPv4(10, 43, 0, 10), net.ParseIP("fd00::10")
	for name, tc := range map[string]struct {
		dns                 []net.IP
		first, list, policy string
	}{
		"IPv4":       {[]net.IP{four}, "10.43.0.10", `["10.43.0.10"]`, "SingleStack"},
		"IPv6":       {[]net.IP{six}, "fd00::10", `["fd00::10"]`, "SingleStack"},
		"dual stack": {[]net.IP{six, four}, "fd00::10", `["fd00::10", "10.43.0.10"]`, "RequireDualStack"},
	} {
		got := Variables{ClusterDNS: tc.dns, ClusterDomain: "cluster.local", DataDir: "/var/lib/kedge"}.Map()
		if got["CLUSTER_DNS"] != tc.first || got["CLUSTER_DNS_LIST"] != tc.list || got["IP_FAMILY_POLICY"] != tc.policy ||
			got["CLUSTER_DOMAIN"] != "cluster.local" || got["DATA_DIR"] != "/var/lib/kedge" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSystemRegistry(t *testing.T) {
	for registry, want := range map[string]string{"": "", "mirror.example:5000": "mirror.example:5000/"} {
		got := Variables{SystemRegistry: registry}.Map()
		if got["SYSTEM_DEFAULT_REGISTRY"] != want || got["SYSTEM_DEFAULT_REGISTRY_RAW"] != registry {
			t.Errorf("%q: %v", registry, got)
		}
	}
}

func TestEveryFileSaysWhatItIsFor(t *testing.T) {
	names, err := fs.Glob(FS(), "*.yaml")
	if err != nil || len(names) < 4 {
		t.Fatalf("%v %v", names, err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(FS(), name)
		if err != nil || !strings.HasPrefix(string(data), "# ") {
			t.Errorf("%s does not begin with a comment: %v", name, err)
		}
	}
}
