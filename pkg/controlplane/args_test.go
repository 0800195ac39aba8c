package controlplane

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/golden"
)

func example() Config {
	return Config{
		Files: Files{
			ServerCA: "/d/server-ca.crt", ServerCAKey: "/d/server-ca.key", ClientCA: "/d/client-ca.crt", ClientCAKey: "/d/client-ca.key",
			RequestHeaderCA: "/d/rh-ca.crt", ServingCert: "/d/serving.crt", ServingKey: "/d/serving.key",
			KubeletCert: "/d/kubelet.crt", KubeletKey: "/d/kubelet.key", ProxyClientCert: "/d/proxy.crt", ProxyClientKey: "/d/proxy.key",
			ServiceKey: "/d/service.key", AdminKubeconfig: "/d/admin", ControllerKubeconfig: "/d/controller", SchedulerKubeconfig: "/d/scheduler",
		},
		EtcdEndpoint: "unix:///run/store.sock", SingleServer: true, BindAddress: "0.0.0.0", Port: 6443,
		AdvertiseAddress: netip.MustParseAddr("10.0.0.1"),
		ClusterCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		ServiceCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		NodePortRange:    "30000-32767", ClusterDomain: "cluster.local",
	}
}

func checkArgs(t *testing.T, name string, args []string) {
	t.Helper()
	golden.Check(t, name, strings.Join(args, "\n")+"\n")
}

func TestArgumentsGolden(t *testing.T) {
	one := example()
	several := example()
	several.SingleServer = false
	several.EtcdEndpoint, several.EtcdCAFile, several.EtcdCertFile, several.EtcdKeyFile = "https://etcd:2379", "/e/ca", "/e/crt", "/e/key"
	several.ClusterCIDRs = append(several.ClusterCIDRs, netip.MustParsePrefix("fd42::/48"))
	several.APIServerArgs = []string{"v=4", "--audit-log-path=-"}
	checkArgs(t, "apiserver.one.txt", apiServerArgs(one))
	checkArgs(t, "apiserver.several.txt", apiServerArgs(several))
	checkArgs(t, "controller-manager.one.txt", controllerManagerArgs(one))
	checkArgs(t, "controller-manager.several.txt", controllerManagerArgs(several))
	checkArgs(t, "scheduler.one.txt", schedulerArgs(one))
}

func TestUserArgumentsAreLastSoThatTheyWin(t *testing.T) {
	c := example()
	c.APIServerArgs = []string{"anonymous-auth=true"}
	args := apiServerArgs(c)
	if last := args[len(args)-1]; last != "--anonymous-auth=true" {
		t.Errorf("last argument is %q", last)
	}
}

func TestEveryArgumentIsKnownUpstream(t *testing.T) {
	c := example()
	if _, err := NewScheduler(c); err != nil {
		t.Error(err)
	}
	if _, err := NewControllerManager(c); err != nil {
		t.Error(err)
	}
	if _, err := NewAPIServer(c); err != nil {
		t.Error(err)
	}
	c.SchedulerArgs = []string{"no-such-flag=1"}
	if _, err := NewScheduler(c); err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("an unknown argument of the user gave %v", err)
	}
}

func TestFailedChecksNamesOnlyWhatFails(t *testing.T) {
	body := "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n[-]etcd failed: x\nreadyz check failed\n"
	if got, want := failedChecks(body), "waiting for poststarthook/rbac/bootstrap-roles, etcd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := failedChecks("  not found \n"); got != "not found" {
		t.Errorf("got %q", got)
	}
}

func TestBaseURL(t *testing.T) {
	for bind, want := range map[string]string{"0.0.0.0": "https://127.0.0.1:6443", "::": "https://127.0.0.1:6443", "10.0.0.1": "https://10.0.0.1:6443", "fd00::1": "https://[fd00::1]:6443"} {
		c := example()
		c.BindAddress = bind
		if got := c.baseURL(); got != want {
			t.Errorf("bound to %s: got %s, want %s", bind, got, want)
		}
	}
}
