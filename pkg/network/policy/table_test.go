package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
	"github.com/kedge-io/kedge/test/lab/netns"
)

// kernel is a network of its own for the test, and nft in it.
func kernel(t *testing.T) (ns *netns.Namespace, nft string) {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and nft: %v", err)
	}
	if ns, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns, nft
}

// in runs a step in the network of the test.
func in(t *testing.T, ns *netns.Namespace, step func() error) {
	t.Helper()
	if err := ns.Do(step); err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, ns *netns.Namespace, nft string) string {
	t.Helper()
	var out []byte
	in(t, ns, func() (err error) {
		out, err = exec.Command(nft, "list", "ruleset").CombinedOutput()
		return err
	})
	return string(out)
}

func tableOf(ips ...string) ruleset.Table {
	t := compile.Table(compile.Input{Node: "n", Bridge: "cni0"})
	for _, ip := range ips {
		t.Sets["known4"].Elements[ip] = ""
	}
	return t
}

// TestTableInTheKernel applies differences, and everything again when somebody else has flushed the rules.
func TestTableInTheKernel(t *testing.T) {
	ns, nft := kernel(t)
	k := &table{nft: nft, file: filepath.Join(t.TempDir(), "agent", "saved.nft")}
	ctx := t.Context()
	in(t, ns, func() error { return k.apply(ctx, tableOf("10.42.0.2")) })
	in(t, ns, func() error { return k.apply(ctx, tableOf("10.42.0.2", "10.42.0.3")) })
	full := listing(t, ns, nft)
	if !strings.Contains(full, "10.42.0.2, 10.42.0.3") || !strings.Contains(full, `iifname "cni0" ip saddr != @known4 drop`) {
		t.Errorf("the kernel has\n%s", full)
	}
	in(t, ns, func() error { return exec.Command(nft, "flush", "ruleset").Run() })
	in(t, ns, func() error { k.audit(ctx); return nil })
	in(t, ns, func() error { return k.apply(ctx, tableOf("10.42.0.2", "10.42.0.3")) })
	if got := listing(t, ns, nft); got != full {
		t.Errorf("after a flush the kernel has\n%s\nwant\n%s", got, full)
	}
	in(t, ns, func() error { return exec.Command(nft, "flush", "set", "inet", compile.TableName, "known4").Run() })
	in(t, ns, func() error { return k.apply(ctx, tableOf("10.42.0.3", "10.42.0.4")) }) // the difference cannot be applied
	if got := listing(t, ns, nft); !strings.Contains(got, "10.42.0.3, 10.42.0.4") {
		t.Errorf("after a failed change the kernel has\n%s", got)
	}
}

// TestRulesOutliveAReboot saves and restores: the same restrictions, but nothing that cuts off what is not known.
func TestRulesOutliveAReboot(t *testing.T) {
	ns, nft := kernel(t)
	k := &table{nft: nft, file: filepath.Join(t.TempDir(), "agent", "saved.nft")}
	ctx := t.Context()
	in(t, ns, func() error { return k.restore(ctx) }) // nothing was saved
	in(t, ns, func() error { return k.apply(ctx, tableOf("10.42.0.2")) })
	if err := k.save(); err != nil {
		t.Fatal(err)
	}
	in(t, ns, func() error { return exec.Command(nft, "flush", "ruleset").Run() })
	again := &table{nft: nft, file: k.file}
	in(t, ns, func() error { return again.restore(ctx) })
	got := listing(t, ns, nft)
	if !strings.Contains(got, "ip saddr vmap @egress4") || !strings.Contains(got, "10.42.0.2") || strings.Contains(got, "cni0") {
		t.Errorf("the restored rules are\n%s", got)
	}
	in(t, ns, func() error { return again.remove(ctx) })
	if got := listing(t, ns, nft); got != "" {
		t.Errorf("after the last policy there are\n%s", got)
	}
	if _, err := os.Stat(k.file); err == nil {
		t.Error("the saved rules are still there")
	}
}
