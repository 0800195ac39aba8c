package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// TestMain lets the tests start this binary as the plugin, so that they exercise
// real processes.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		skel.PluginMainFuncs(Plugin(), version.All, "test")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const confFormat = `{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", %s
 "ipam": {"type": "kedge-ipam", "dataDir": %q, "ranges": [[{"subnet": "10.42.0.0/22"}], [{"subnet": "fd00:42::/64"}]],
 "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}`

// call is one start of the plugin.
func call(command, dataDir, uid, sandbox, extra string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + sandbox, "CNI_NETNS=" + deadNetns, "CNI_IFNAME=eth0",
		"CNI_NETNS_OVERRIDE=1", "CNI_PATH=/",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=" + sandbox + ";K8S_POD_UID=" + uid,
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(confFormat, extra, dataDir))
	return cmd
}

func add(t *testing.T, dataDir, uid, sandbox string) string {
	t.Helper()
	out, err := call("ADD", dataDir, uid, sandbox, "").Output()
	if err != nil {
		t.Errorf("ADD: %v: %s", err, out)
	}
	return addedIPs(t, out)
}

func addedIPs(t *testing.T, out []byte) string {
	t.Helper()
	var result current.Result
	if err := json.Unmarshal(out, &result); err != nil {
		t.Errorf("result %q: %v", out, err)
		return ""
	}
	var ips []string
	for _, ip := range result.IPs {
		ips = append(ips, ip.Address.String()+" via "+ip.Gateway.String())
	}
	return strings.Join(ips, ", ")
}

func TestPluginCommands(t *testing.T) {
	dir := t.TempDir()
	first := add(t, dir, "uid-a", "s1")
	if first != "10.42.0.2/22 via 10.42.0.1, fd00:42::2/64 via fd00:42::1" {
		t.Errorf("ADD gave %s", first)
	}
	for _, c := range []struct {
		command, sandbox, extra, want string
		fails                         bool
	}{
		{"STATUS", "", "", "", false},
		{"VERSION", "", "", `"supportedVersions"`, false},
		{"CHECK", "s1", `"prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.42.0.2/22"}, {"address": "fd00:42::2/64"}]},`, "", false},
		{"CHECK", "s1", `"prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.42.0.9/22"}]},`, "not in prevResult", true},
		{"CHECK", "s2", "", "has no address", true},
		{"DEL", "s1", "", "", false},
		{"DEL", "s1", "", "", false},
		{"GC", "", `"cni.dev/valid-attachments": [],`, "", false},
		{"CHECK", "s1", "", "has no address", true},
	} {
		out, err := call(c.command, dir, "uid-a", c.sandbox, c.extra).CombinedOutput()
		if (err != nil) != c.fails || !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s: %v: %s", c.command, c.sandbox, err, out)
		}
	}
	if again := add(t, dir, "uid-a", "s2"); again != first {
		t.Errorf("the second sandbox got %s, want %s", again, first)
	}
}

func TestPluginBadConfiguration(t *testing.T) {
	for conf, want := range map[string]string{
		`{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", "ipam": {"type": "kedge-ipam", "dataDir": "/tmp"}}`:                                                 `ipam.ranges is empty`,
		`{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", "ipam": {"type": "kedge-ipam", "ranges": [[{"subnet": "10.0.0.0/24"}]]}}`:                           `ipam.dataDir`,
		`{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", "ipam": {"type": "kedge-ipam", "dataDir": "/tmp", "ranges": [[{"subnet": "10.0.0.0"}]]}}`:           `decode network configuration`,
		`{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", "ipam": {"type": "kedge-ipam", "dataDir": "/dev/null/x", "ranges": [[{"subnet": "10.0.0.0/24"}]]}}`: `open address store`,
	} {
		cmd := call("ADD", t.TempDir(), "a", "s", "")
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.Output()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s, want %q", err, out, want)
		}
	}
}

func TestProcessesInParallel(t *testing.T) {
	dir := t.TempDir()
	const pods = 60
	got := make([]string, pods)
	var processes sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i := range pods {
		processes.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			got[i] = add(t, dir, fmt.Sprint("uid-", i), fmt.Sprint("s", i))
		})
	}
	processes.Wait()
	owner := map[string]int{}
	for i, ips := range got {
		if other, taken := owner[ips]; taken {
			t.Errorf("pods %d and %d both got %s", other, i, ips)
		}
		owner[ips] = i
	}
	for i := range got {
		if again := add(t, dir, fmt.Sprint("uid-", i), "later"); again != got[i] {
			t.Errorf("pod %d had %s, now %s", i, got[i], again)
		}
	}
}

// TestKilledAnywhere kills plugins while they work: what a plugin answered must
// stay, no two pods may share an address, and nothing may stop the next one.
func TestKilledAnywhere(t *testing.T) {
	dir := t.TempDir()
	answered := map[string]string{}
	for round := range 40 {
		var group []*exec.Cmd
		outs := make([]bytes.Buffer, 4)
		for i := range outs {
			cmd := call("ADD", dir, fmt.Sprintf("uid-%d-%d", round, i), "s", "")
			cmd.Stdout = &outs[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			group = append(group, cmd)
		}
		// The kill falls at a random moment of the others' work.
		victims := rand.Perm(len(group))[:2]
		_ = group[victims[0]].Wait()
		if err := group[victims[1]].Process.Kill(); err != nil && round == 0 {
			t.Log(err)
		}
		for i, cmd := range group {
			_ = cmd.Wait()
			if outs[i].Len() > 0 && json.Valid(outs[i].Bytes()) {
				answered[fmt.Sprintf("uid-%d-%d", round, i)] = addedIPs(t, outs[i].Bytes())
			}
		}
	}
	if len(answered) < 80 {
		t.Fatalf("only %d pods got an answer", len(answered))
	}
	for uid, ips := range answered {
		if again := add(t, dir, uid, "later"); again != ips {
			t.Errorf("pod %s had %s, now %s", uid, ips, again)
		}
	}
	owner := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "pods", "held", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		e, err := parseEntry(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range e.addrs {
			if other, taken := owner[a.String()]; taken {
				t.Errorf("%s and %s both hold %s", other, e.owner, a)
			}
			owner[a.String()] = e.owner
		}
	}
}

// BenchmarkAdd is a whole start of the plugin for a pod that has its address.
func BenchmarkAdd(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		if out, err := call("ADD", dir, "uid", "s", "").Output(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

func TestHardwareAddressBelongsToTheIP(t *testing.T) {
	for address, want := range map[string]string{
		"10.42.0.2":   "0a:58:0a:2a:00:02",
		"10.42.1.2":   "0a:58:0a:2a:01:02",
		"fd00:42::2":  macOf(netip.MustParseAddr("fd00:42::2")).String(),
		"fd00:42::2a": macOf(netip.MustParseAddr("fd00:42::2a")).String(),
	} {
		got := macOf(netip.MustParseAddr(address))
		if got.String() != want || len(got) != 6 || got[0]&3 != 2 {
			t.Errorf("%s: %s, want %s, of one interface and locally made", address, got, want)
		}
	}
	if bytes.Equal(macOf(netip.MustParseAddr("fd00::1")), macOf(netip.MustParseAddr("fd00::2"))) {
		t.Error("two addresses have one hardware address")
	}
}
