package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
)

// table is the table in the kernel and its copy on disk.
type table struct {
	nft, file string
	// have is what the kernel has, if known.
	have  ruleset.Table
	known bool
	// removed says that the kernel has no table.
	removed bool
	// unsaved says that the file differs from have.
	unsaved bool
}

// run loads a script as one transaction.
func (t *table) run(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, t.nft, "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		const most = 2 << 10
		return fmt.Errorf("run nft: %w: %s", err, bytes.TrimSpace(out[:min(len(out), most)]))
	}
	return nil
}

// restore loads the rules of the last run. Until policies are known again they only restrict pods that they know: a pod that
// starts now must not wait for the far side of a link.
func (t *table) restore(ctx context.Context) error {
	script, err := os.ReadFile(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return t.run(ctx, string(script))
}

// apply changes the kernel's table to want, or makes it anew if it is not as it should be.
func (t *table) apply(ctx context.Context, want ruleset.Table) error {
	if t.known {
		change := want.From(t.have)
		if change == "" {
			return nil
		}
		if t.run(ctx, change) == nil {
			t.have, t.unsaved = want, true
			return nil
		}
	}
	t.known, t.removed = false, false
	if err := t.run(ctx, want.Create()); err != nil {
		return err
	}
	t.have, t.known, t.unsaved = want, true, true
	return nil
}

// audit forgets what the kernel has if it has no table at all.
func (t *table) audit(ctx context.Context) {
	if t.known && exec.CommandContext(ctx, t.nft, "list", "chain", "inet", compile.TableName, compile.UnknownChain).Run() != nil {
		t.known = false
	}
}

// remove takes the table and its copy away.
func (t *table) remove(ctx context.Context) error {
	if t.removed {
		return nil
	}
	t.known, t.unsaved = false, false
	if err := t.run(ctx, ruleset.Table{Name: compile.TableName}.Remove()); err != nil {
		return err
	}
	if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.removed = true
	return nil
}

// save writes the rules for restore.
func (t *table) save() error {
	if !t.unsaved {
		return nil
	}
	keep := t.have
	keep.Chains = make(map[string]ruleset.Chain, len(t.have.Chains))
	for name, c := range t.have.Chains {
		if name == compile.UnknownChain {
			c.Rules = nil
		}
		keep.Chains[name] = c
	}
	if err := os.MkdirAll(filepath.Dir(t.file), 0o700); err != nil {
		return err
	}
	temp := t.file + ".new"
	if err := os.WriteFile(temp, []byte(keep.Create()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, t.file); err != nil {
		return err
	}
	t.unsaved = false
	return nil
}

// seeBridge has the kernel show packets between pods of this node to the rules: they only cross the bridge.
func seeBridge(bridge string) error {
	if bridge == "" {
		return nil
	}
	for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		path := filepath.Join("/proc/sys/net/bridge", key)
		have, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(have)) == "1" {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("pods of this node reach each other in spite of policies: the kernel needs br_netfilter: %w", err)
		}
	}
	return nil
}
