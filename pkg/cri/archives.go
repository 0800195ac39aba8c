package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/fsnotify/fsnotify"

	"github.com/kedge-io/kedge/pkg/dropin"
)

// ArchivesConfig says where image archives lie and where they go.
type ArchivesConfig struct {
	// Dir is watched for archives, CacheFile remembers what has been imported.
	Dir, CacheFile string
	Socket         string
	Snapshotter    string
}

// Archives keeps the images of the archives in a directory in containerd's store, as a component:
// at start, when a file appears or changes, and again when the store has lost them.
type Archives struct {
	cfg    ArchivesConfig
	log    *slog.Logger
	synced atomic.Bool
	failed map[string]archive
}

// archive is a file as it was when it was imported.
type archive struct {
	Size     int64
	Modified time.Time
	Images   []string
}

const (
	// settle is how long a file must have kept its time before it is read where the kernel cannot say whether it is still
	// being written; again is when a file that was is looked at again.
	settle = time.Second
	again  = 200 * time.Millisecond
	// rescan is how often the store is compared with the directory although nothing changed.
	rescan = 10 * time.Minute
)

// NewArchives makes the directory; it starts nothing.
func NewArchives(cfg ArchivesConfig, log *slog.Logger) (*Archives, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make image directory: %w", err)
	}
	return &Archives{cfg: cfg, log: log, failed: map[string]archive{}}, nil
}

// Name implements supervisor.Component.
func (*Archives) Name() string { return "images" }

// Ready implements supervisor.Component: every archive that was there at the start has been looked at.
func (a *Archives) Ready(context.Context) error {
	if a.synced.Load() {
		return nil
	}
	return errors.New("importing image archives")
}

// Run implements supervisor.Component.
func (a *Archives) Run(ctx context.Context) error {
	client, err := containerd.New(a.cfg.Socket, containerd.WithDefaultNamespace(Namespace))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch image directory: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(a.cfg.Dir); err != nil {
		return fmt.Errorf("watch %s: %w", a.cfg.Dir, err)
	}
	next := time.NewTimer(rescan)
	for {
		unsettled := a.sync(ctx, client)
		a.synced.Store(true)
		next.Reset(rescan)
		if unsettled {
			next.Reset(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		case <-watcher.Events:
		case err := <-watcher.Errors:
			a.log.Warn("watch image directory", "error", err)
		}
	}
}

// sync imports what is new, changed or lost, and reports whether some file may still be growing.
func (a *Archives) sync(ctx context.Context, client *containerd.Client) (unsettled bool) {
	cache := a.readCache()
	entries, err := os.ReadDir(a.cfg.Dir)
	if err != nil {
		a.log.Warn("read image directory", "error", err)
		return false
	}
	present := map[string]archive{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !isArchive(e.Name()) || !info.Mode().IsRegular() {
			continue
		}
		now := archive{Size: info.Size(), Modified: info.ModTime().UTC()}
		if old, ok := cache[e.Name()]; ok && old.same(now) && a.complete(ctx, client, old.Images) {
			present[e.Name()] = old
			continue
		}
		if old, ok := a.failed[e.Name()]; ok && old.same(now) {
			continue
		}
		if growing(filepath.Join(a.cfg.Dir, e.Name()), info.ModTime()) {
			unsettled = true
			continue
		}
		if a.load(ctx, client, e.Name(), &now) {
			present[e.Name()] = now
		}
	}
	if err := a.writeCache(cache, present); err != nil {
		a.log.Warn("remember imported images", "error", err)
	}
	return unsettled
}

// growing reports whether somebody may still be writing the file.
func growing(path string, modified time.Time) bool {
	file, err := os.Open(path)
	if err != nil {
		return false // the import says why
	}
	defer file.Close()
	writing, known := dropin.Writing(file)
	return writing || !known && time.Since(modified) < settle
}

// load imports one archive and says how it went; a broken one is not tried again until it changes.
func (a *Archives) load(ctx context.Context, client *containerd.Client, name string, now *archive) bool {
	begin := time.Now()
	images, err := Import(ctx, client, filepath.Join(a.cfg.Dir, name), a.cfg.Snapshotter)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		a.failed[name] = *now
		a.log.Error("import image archive", "file", name, "error", err)
		return false
	}
	delete(a.failed, name)
	now.Images = images
	a.log.Info("imported image archive", "file", name, "images", images, "took", time.Since(begin).Round(time.Millisecond))
	return true
}

// complete reports whether the store has all images, unpacked and pinned.
func (a *Archives) complete(ctx context.Context, client *containerd.Client, names []string) bool {
	for _, name := range names {
		img, err := client.GetImage(ctx, name)
		if err != nil || img.Labels()[pinnedLabel] == "" {
			return false
		}
		if ok, err := img.IsUnpacked(ctx, a.cfg.Snapshotter); err != nil || !ok {
			return false
		}
	}
	return true
}

func (a archive) same(b archive) bool { return a.Size == b.Size && a.Modified.Equal(b.Modified) }

// isArchive goes by the name: tar, plain or compressed. Hidden files are somebody's half-written ones.
func isArchive(name string) bool {
	endings := []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"}
	return !strings.HasPrefix(name, ".") && slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) })
}

// readCache returns what was imported before; a damaged cache only means that everything is imported again.
func (a *Archives) readCache() map[string]archive {
	cache := map[string]archive{}
	if data, err := os.ReadFile(a.cfg.CacheFile); err == nil && json.Unmarshal(data, &cache) != nil {
		return map[string]archive{}
	}
	return cache
}

func (a *Archives) writeCache(old, now map[string]archive) error {
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if before, err := json.Marshal(old); err == nil && string(before) == string(data) {
		return nil
	}
	tmp := a.cfg.CacheFile + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, a.cfg.CacheFile)
}
