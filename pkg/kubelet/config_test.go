package kubelet

import (
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kedge-io/kedge/test/golden"
)

func example() Config {
	return Config{
		NodeName: "edge1", NodeIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Kubeconfig: "/d/kubelet.kubeconfig", ClientCA: "/d/client-ca.crt", ServingCert: "/d/kubelet.crt", ServingKey: "/d/kubelet.key",
		CRISocket: "/run/kedge/containerd/containerd.sock", RootDir: "/var/lib/kubelet", StaticPodDir: "/d/pod-manifests", PluginDir: "/d/plugins",
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local", ResolvConf: "/etc/resolv.conf",
		Labels: map[string]string{"shop": "7"}, Taints: []string{"edge=yes:NoSchedule"},
	}
}

func TestSettingsGolden(t *testing.T) {
	s, err := server(example())
	if err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Marshal(map[string]any{"flags": s.KubeletFlags, "configuration": s.KubeletConfiguration})
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "settings.yaml", string(got))
}

func TestUserArgumentsWin(t *testing.T) {
	c := example()
	c.ExtraArgs = []string{"max-pods=17", "--cluster-domain=shop.example"}
	s, err := server(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxPods != 17 || s.ClusterDomain != "shop.example" {
		t.Errorf("max pods %d, domain %q", s.MaxPods, s.ClusterDomain)
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	for arg, want := range map[string]string{"max-pots=17": "max-pots", "max-pods=many": "max-pods", "register-with-taints=x": "taint"} {
		c := example()
		c.ExtraArgs = []string{arg}
		if _, err := server(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", arg, err)
		}
	}
}
