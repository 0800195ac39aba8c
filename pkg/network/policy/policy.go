// Package policy enforces NetworkPolicies for the pods of this node with one nftables table. Only agent imports it.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
	"github.com/kedge-io/kedge/pkg/network/policy/ruleset"
)

// Config is what the enforcement of policies on one node needs to know.
type Config struct {
	NodeName   string
	Kubeconfig string
	// DNS are the addresses at which this node answers for the Service kube-dns; none if another does.
	DNS []netip.Addr
	// Nft is the path of the program that loads nftables rules.
	Nft string
	// File keeps the rules over a reboot.
	File string
	// Bridge is the interface of the pods and ReservedDir the store of their addresses; both are empty where another plugin makes the
	// pod network.
	Bridge, ReservedDir string
	// Off enforces nothing, and removes what an earlier run enforced.
	Off bool
	Log *slog.Logger
}

// Policies is the enforcement as a component.
type Policies struct {
	cfg      Config
	log      *slog.Logger
	table    *table
	restored atomic.Bool
}

const (
	// pause is the least time between two compilations, and restFactor how many times longer than a compilation the loop rests after it.
	pause, restFactor = 50 * time.Millisecond, 4
	// audit is how often the kernel is asked whether it still has the table: another program may have flushed it.
	audit = time.Minute
	// saveAfter is how long after a change rules are saved, so that a flash card is not written for each pod.
	saveAfter = 5 * time.Second
)

// New checks cfg; it starts nothing.
func New(cfg Config) (*Policies, error) {
	if !filepath.IsAbs(cfg.File) || !filepath.IsAbs(cfg.Nft) {
		return nil, fmt.Errorf("network policy: file %q and nft %q must be absolute paths", cfg.File, cfg.Nft)
	}
	if (cfg.Bridge == "") != (cfg.ReservedDir == "") {
		return nil, errors.New("network policy: bridge and store of addresses go together")
	}
	return &Policies{cfg: cfg, log: cfg.Log, table: &table{nft: cfg.Nft, file: cfg.File}}, nil
}

// Name implements supervisor.Component.
func (*Policies) Name() string { return "network-policy" }

// Ready implements supervisor.Component: the rules that were in force before the last stop are in force.
func (p *Policies) Ready(context.Context) error {
	if p.restored.Load() {
		return nil
	}
	return errors.New("loading the saved rules")
}

// Run implements supervisor.Component. The rules stay when it ends, because the pods do.
func (p *Policies) Run(ctx context.Context) error {
	if p.cfg.Off {
		if err := p.table.remove(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("remove the rules of network policies", "error", err)
		}
		p.restored.Store(true)
		<-ctx.Done()
		return nil
	}
	if err := p.table.restore(ctx); err != nil {
		p.log.Warn("load saved network policy rules", "error", err)
	}
	p.restored.Store(true)
	w, err := newWatch(p.cfg)
	if err != nil {
		return err
	}
	w.follow(ctx)
	p.follow(ctx, w)
	return p.table.save()
}

// follow keeps the rules right until ctx is done.
func (p *Policies) follow(ctx context.Context, w *watch) {
	check, save, retry := time.NewTicker(audit), time.NewTimer(saveAfter), time.NewTimer(0)
	defer check.Stop()
	for failures, saving := 0, true; ; {
		select {
		case <-ctx.Done():
			w.stop()
			return
		case <-check.C:
			p.table.audit(ctx)
		case <-save.C:
			saving = false
			p.report("save network policy rules", p.table.save())
			continue
		case <-retry.C:
		case <-w.changed:
		}
		begin := time.Now()
		err := p.sync(ctx, w)
		rest := max(pause, restFactor*time.Since(begin))
		if ctx.Err() != nil {
			continue
		}
		p.report("apply network policies", err)
		if failures++; err == nil {
			failures = 0
		} else {
			retry.Reset(min(time.Second<<min(failures, 5), audit))
		}
		if p.table.unsaved && !saving {
			saving = true
			save.Reset(saveAfter)
		}
		select { // the next change waits until now is over, and then finds all that came with it
		case <-ctx.Done():
		case <-time.After(rest):
		}
	}
}

func (p *Policies) report(step string, err error) {
	if err != nil {
		p.log.Error(step, "error", err)
	}
}

// sync makes the rules those that the policies ask for. While there is no policy, nothing else is watched.
func (p *Policies) sync(ctx context.Context, w *watch) error {
	if !w.policies.loop.HasSynced() {
		return nil
	}
	policies := w.list()
	if len(policies) == 0 {
		if w.stop() {
			p.log.Info("no network policies are left")
		}
		return p.table.remove(ctx)
	}
	if w.start(ctx) {
		p.log.Info("network policies are enforced", "policies", len(policies))
		p.report("guard the bridge of the pods", seeBridge(p.cfg.Bridge))
	}
	if !w.synced() {
		return nil
	}
	want, err := p.compile(w, policies)
	if err != nil {
		return err
	}
	return p.table.apply(ctx, want)
}

func (p *Policies) compile(w *watch, policies []*networkingv1.NetworkPolicy) (ruleset.Table, error) {
	reserved, err := w.reservations()
	if err != nil {
		return ruleset.Table{}, fmt.Errorf("read addresses of pods: %w", err)
	}
	return compile.Table(compile.Input{
		Node: p.cfg.NodeName, Pods: w.pods(), Reservations: reserved, Namespaces: w.namespaces(), Policies: policies,
		DNS: p.cfg.DNS, Bridge: p.cfg.Bridge,
	}), nil
}
