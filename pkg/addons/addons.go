// Package addons makes the cluster hold what lies in the manifests folder: the packaged add-ons and the site owner's files.
//
// Each file has an AddOn object as its record. Files are applied with server-side apply; what a file drops is pruned; a file
// that is deleted takes its objects along; a broken file changes nothing and says why. Only server imports this package.
package addons

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kedge-io/kedge/pkg/kube"
)

const (
	// recordsFile is the packaged file that defines the kind AddOn; it goes before all others.
	recordsFile = "addons.yaml"
	// rescan is the longest time between two looks at the folder, for what inotify cannot see.
	rescan = 10 * time.Minute
	// minLook keeps a busy folder from being looked at all the time.
	minLook = 50 * time.Millisecond
	// patience is how many attempts a packaged add-on that waits for something may hold up readiness.
	patience = 5
)

// Config is what the add-ons component needs to know.
type Config struct {
	Dir        string            // the manifests folder, <data>/server/manifests
	Packaged   fs.FS             // manifests.FS()
	Variables  map[string]string // of the packaged files, manifests.Variables.Map()
	Disabled   []string          // names given to --disable
	Server     string            // node name of this server
	Kubeconfig string            // of an identity that may do everything
	Log        *slog.Logger
}

// Addons is the component that applies the manifests folder.
type Addons struct {
	cfg      Config
	disabled disabledSet
	packaged map[string]string // checksum by path
	rendered map[string][]byte
	inv      inventory
	client   *kube.Client

	recordsKnown bool  // the kind AddOn was applied by this process
	outages      int   // passes in a row that did not reach the API
	watchProblem error // last one logged
	first        atomic.Bool
}

// New fills in the packaged files and writes them to the folder. It does not connect to anything.
func New(cfg Config) (*Addons, error) {
	if cfg.Dir == "" || cfg.Packaged == nil || cfg.Server == "" || cfg.Kubeconfig == "" || cfg.Log == nil {
		return nil, errors.New("add-ons: folder, packaged files, server name, kubeconfig and log are required")
	}
	disabled, err := newDisabledSet(cfg.Disabled)
	if err != nil {
		return nil, err
	}
	rendered, err := render(cfg.Packaged, cfg.Variables)
	if err != nil {
		return nil, err
	}
	if rendered[recordsFile] == nil {
		return nil, fmt.Errorf("add-ons: packaged file %s is missing", recordsFile)
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	if err := stage(cfg.Dir, rendered, disabled); err != nil {
		return nil, fmt.Errorf("write packaged manifests: %w", err)
	}
	a := &Addons{cfg: cfg, disabled: disabled, rendered: rendered, packaged: map[string]string{}, inv: inventory{}}
	for rel, data := range rendered {
		sum := sha256.Sum256(data)
		a.packaged[rel] = hex.EncodeToString(sum[:])
	}
	return a, nil
}

// Name implements supervisor.Component.
func (a *Addons) Name() string { return "addons" }

// Ready implements supervisor.Component: every packaged add-on has been applied, or was refused.
func (a *Addons) Ready(context.Context) error {
	if !a.first.Load() {
		return errors.New("packaged add-ons are being applied")
	}
	return nil
}

// Run implements supervisor.Component.
func (a *Addons) Run(ctx context.Context) error {
	restConfig, err := kube.Config(a.cfg.Kubeconfig, a.Name())
	if err != nil {
		return err
	}
	if a.client, err = kube.NewClient(restConfig); err != nil {
		return err
	}
	w, err := newWatcher()
	if err != nil {
		a.cfg.Log.Warn("manifests folder is not watched, only looked at now and then: raise fs.inotify.max_user_instances",
			"every", rescan, "error", err)
	}
	defer w.close()
	for ctx.Err() == nil {
		if !a.await(ctx, w, a.look(ctx, w)) {
			break
		}
	}
	return nil
}

// await returns when the folder has changed and been quiet for a moment, or when wait is over. It says whether to go on.
func (a *Addons) await(ctx context.Context, w *watcher, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case err := <-w.errors(): // the queue overflowed: events were lost
			a.cfg.Log.Debug("manifests folder watch", "error", err)
			return true
		case <-w.events():
			for quiet := false; !quiet; {
				select {
				case <-w.events():
				case <-time.After(debounce):
					quiet = true
				case <-ctx.Done():
					return false
				}
			}
			return true
		}
	}
}

// look does one round: see the folder, decide, act. It returns how long to wait for the next one.
func (a *Addons) look(ctx context.Context, w *watcher) time.Duration {
	seen, err := scan(a.cfg.Dir)
	if err != nil {
		a.cfg.Log.Warn("manifests folder cannot be read, nothing is changed", "error", err)
		return time.Minute
	}
	if err := w.follow(seen.dirs); err != nil && (a.watchProblem == nil || a.watchProblem.Error() != err.Error()) {
		a.cfg.Log.Warn("manifests folder is not watched, only looked at now and then", "every", rescan, "error", err)
		a.watchProblem = err
	}
	now := time.Now()
	a.inv.observe(now, seen, a.packaged)
	if a.first.Load() && !a.anyDue(now) {
		return a.inv.nextLook(now)
	}
	if err := a.reconcile(ctx, now, seen); err != nil {
		a.outages++
		if a.outages == patience+1 && ctx.Err() == nil {
			a.cfg.Log.Warn("add-ons wait for the API", "error", err)
		}
		return min(retryDelay(a.outages), 30*time.Second)
	}
	a.outages = 0
	a.noteFirst()
	return a.inv.nextLook(time.Now())
}

// anyDue says whether any file may need the API now.
func (a *Addons) anyDue(now time.Time) bool {
	for _, f := range a.inv.files(now, a.packaged) {
		if !f.done && !f.pending && (!f.missing || f.gone && !f.skip) {
			return true
		}
	}
	return false
}

func (a *Addons) reconcile(ctx context.Context, now time.Time, seen *sight) error {
	if err := a.ensureKind(ctx); err != nil {
		return err
	}
	records, err := listRecords(ctx, a.client)
	if err != nil {
		return fmt.Errorf("list add-ons: %w", err)
	}
	a.inv.adopt(now, seen, records, a.cfg.Server)
	files := a.inv.files(now, a.packaged)
	steps, claims := decide(files, records, a.disabled)
	p := &pass{client: a.client, log: a.cfg.Log, server: a.cfg.Server, now: now, inv: a.inv, claims: claims,
		files: map[string]file{}, results: map[string]*result{}}
	for _, f := range files {
		p.files[f.rel] = f
	}
	return p.run(ctx, steps)
}

// ensureKind applies the definition of AddOn before the first record is read.
func (a *Addons) ensureKind(ctx context.Context) error {
	if a.recordsKnown {
		return nil
	}
	objects, err := manifest.Parse(a.rendered[recordsFile])
	if err != nil {
		return fmt.Errorf("packaged file %s: %w", recordsFile, err)
	}
	for _, obj := range objects {
		if _, err := a.client.Apply(ctx, obj, kube.ApplyOptions{Manager: fieldManager}); err != nil {
			return fmt.Errorf("define add-ons: %w", err)
		}
	}
	a.recordsKnown = true
	return nil
}

// noteFirst declares the component ready once each packaged add-on had its chance.
func (a *Addons) noteFirst() {
	if a.first.Load() {
		return
	}
	for rel := range a.packaged {
		t := a.inv[rel]
		if t != nil && !t.entry.skip && !a.disabled.has(rel) && !t.done && t.failures < patience && t.missingSince.IsZero() {
			return
		}
	}
	a.first.Store(true)
}
