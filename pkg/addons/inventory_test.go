package addons

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
)

// folder is a manifests folder looked at with a clock of the test's own.
type folder struct {
	t   *testing.T
	dir string
	inv inventory
	now time.Time
}

func newFolder(t *testing.T) *folder {
	return &folder{t: t, dir: t.TempDir(), inv: inventory{}, now: time.Now()}
}

func (f *folder) write(rel, text string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(f.dir, rel)), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, rel), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// look observes the folder after some time, and returns what is known of the file.
func (f *folder) look(after time.Duration, rel string) file {
	f.t.Helper()
	f.now = f.now.Add(after)
	seen, err := scan(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.inv.observe(f.now, seen, nil)
	for _, known := range f.inv.files(f.now, nil) {
		if known.rel == rel {
			return known
		}
	}
	return file{}
}

const mapYAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestFilesAreReadWhenQuiet(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", mapYAML)
	if got := f.look(0, "a.yaml"); !got.pending {
		t.Errorf("read at once: %+v", got)
	}
	if wait := f.inv.nextLook(f.now); wait != settle {
		t.Errorf("next look in %s", wait)
	}
	f.write("a.yaml", mapYAML+"---\n")
	if got := f.look(settle, "a.yaml"); !got.pending {
		t.Errorf("read while it was changing: %+v", got)
	}
	if got := f.look(settle, "a.yaml"); got.pending || len(got.refs) != 1 || got.checksum == "" {
		t.Errorf("not read: %+v", got)
	}
	f.inv["a.yaml"].succeeded()
	if wait := f.inv.nextLook(f.now); wait != rescan {
		t.Errorf("next look in %s", wait)
	}
	// Touched with the same content: nothing to do.
	if err := os.Chtimes(filepath.Join(f.dir, "a.yaml"), f.now, f.now); err != nil {
		t.Fatal(err)
	}
	f.look(0, "a.yaml")
	if got := f.look(settle, "a.yaml"); !got.done || got.pending {
		t.Errorf("a touched file: %+v", got)
	}
	// Changed: to do.
	f.write("a.yaml", mapYAML+"data: {k: v}\n")
	f.look(0, "a.yaml")
	if got := f.look(settle, "a.yaml"); got.done || got.pending || len(got.refs) != 1 {
		t.Errorf("a changed file: %+v", got)
	}
}

func TestDeletedFilesAreGoneAfterAWhile(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", mapYAML)
	f.look(0, "a.yaml")
	f.look(settle, "a.yaml")
	f.inv["a.yaml"].succeeded()
	if err := os.Rename(filepath.Join(f.dir, "a.yaml"), filepath.Join(f.dir, "a.bak")); err != nil {
		t.Fatal(err)
	}
	if got := f.look(0, "a.yaml"); !got.missing || got.gone {
		t.Errorf("just missing: %+v", got)
	}
	// An editor that saves by rename puts it back: it is read anew.
	if err := os.Rename(filepath.Join(f.dir, "a.bak"), filepath.Join(f.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	f.look(settle/2, "a.yaml")
	if got := f.look(settle, "a.yaml"); got.missing || got.done || got.pending || len(f.inv["a.yaml"].objects) != 1 {
		t.Errorf("returned: %+v", got)
	}
	if err := os.Remove(filepath.Join(f.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	f.look(0, "a.yaml")
	if got := f.look(settle, "a.yaml"); !got.gone {
		t.Errorf("not gone: %+v", got)
	}
}

func TestSkipIsSeenWithoutItsFile(t *testing.T) {
	f := newFolder(t)
	f.write("sub/a.yaml.skip", "")
	seen, err := scan(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	records := []v1alpha1.AddOn{recordOf("sub/a.yaml", "me", "x"), recordOf("b.yaml", "me", "y"), recordOf("c.yaml", "other", "z")}
	f.inv.adopt(f.now, seen, records, "me")
	if got := f.look(settle, "sub/a.yaml"); !got.skip || !got.missing {
		t.Errorf("skipped: %+v", got)
	}
	if got := f.look(0, "b.yaml"); got.skip || !got.gone {
		t.Errorf("gone: %+v", got)
	}
	if got := f.look(0, "c.yaml"); got.rel != "" {
		t.Errorf("file of another server: %+v", got)
	}
}

func TestWhatIsAManifest(t *testing.T) {
	f := newFolder(t)
	outside := t.TempDir()
	for _, rel := range []string{"a.yaml", "b.yml", "c.json", "d.txt", ".hidden.yaml", "e.yaml~", "f.yaml.bak", "deep/er/g.yaml"} {
		f.write(rel, mapYAML)
	}
	if err := os.WriteFile(filepath.Join(outside, "h.yaml"), []byte(mapYAML), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": outside, "loop": f.dir, "file.yaml": filepath.Join(outside, "h.yaml"), "dead.yaml": "/nowhere", "dead": "/nowhere"} {
		if err := os.Symlink(target, filepath.Join(f.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := scan(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range seen.entries {
		got += e.rel + " "
		if (e.problem != "") != (e.rel == "dead.yaml") {
			t.Errorf("%s: problem %q", e.rel, e.problem)
		}
	}
	if want := "a.yaml b.yml c.json dead.yaml deep/er/g.yaml file.yaml link/h.yaml "; got != want {
		t.Errorf("found %s\nwant  %s", got, want)
	}
	// A link that leads nowhere, to a disk that is not mounted perhaps, is broken and not deleted.
	if got := f.look(0, "dead.yaml"); got.problem == "" || got.missing {
		t.Errorf("dead link: %+v", got)
	}
	if _, err := scan(filepath.Join(f.dir, "absent")); err == nil {
		t.Error("a folder that is not there was taken for empty")
	}
}

func TestRetryDelay(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 5: 4 * time.Second, 12: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := retryDelay(failures); got != want {
			t.Errorf("%d: %s, want %s", failures, got, want)
		}
	}
	inv := inventory{"a.yaml": {read: true}}
	now := time.Now()
	inv["a.yaml"].failed(now)
	if wait := inv.nextLook(now.Add(time.Second)); wait != minLook {
		t.Errorf("an overdue retry waits %s", wait)
	}
}
