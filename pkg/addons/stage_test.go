package addons

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kedge-io/kedge/manifests"
	"github.com/kedge-io/kedge/pkg/addons/manifest"
)

func TestRender(t *testing.T) {
	files := fstest.MapFS{"a.yaml": {Data: []byte("ip: %{CLUSTER_DNS}%, 100%{\n")}, "sub/b.yaml": {Data: []byte("x: 1\n")}, "README.md": {Data: []byte("%{NOT_A_MANIFEST}%")}}
	got, err := render(files, map[string]string{"CLUSTER_DNS": "10.43.0.10"})
	if err != nil || len(got) != 2 || string(got["a.yaml"]) != "ip: 10.43.0.10, 100%{\n" {
		t.Errorf("%q %v", got, err)
	}
	for _, values := range []map[string]string{nil, {"CLUSTER_DNS": ""}} {
		if _, err := render(files, values); err == nil || !strings.Contains(err.Error(), "a.yaml: variable CLUSTER_DNS has no value") {
			t.Errorf("got %v", err)
		}
	}
}

func TestStage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	one := map[string][]byte{"a.yaml": []byte("a1"), "b.yaml": []byte("b1"), "sub/c.yaml": []byte("c1")}
	two := map[string][]byte{"a.yaml": []byte("a2"), "b.yaml": []byte("b2")}
	for _, step := range []struct {
		name     string
		prepare  func()
		rendered map[string][]byte
		disabled []string
		want     string
	}{
		{"first start", func() {}, one, nil, "a.yaml=a1 b.yaml=b1 sub/c.yaml=c1"},
		{"the owner edits ours and adds", func() { put(t, dir, "a.yaml", "mine"); put(t, dir, "z.yaml", "mine") }, one, nil, "a.yaml=a1 b.yaml=b1 sub/c.yaml=c1 z.yaml=mine"},
		{"hands off", func() { put(t, dir, "b.yaml", "mine"); put(t, dir, "b.yaml.skip", "") }, two, nil, "a.yaml=a2 b.yaml=mine b.yaml.skip= z.yaml=mine"},
		{"disabled", func() {}, two, []string{"a", "z"}, "b.yaml=mine b.yaml.skip= z.yaml=mine"},
		{"enabled again", func() {}, two, nil, "a.yaml=a2 b.yaml=mine b.yaml.skip= z.yaml=mine"},
		{"a newer kedge without b and a", func() { put(t, dir, ".kedge-tmp-1", "half") }, map[string][]byte{}, nil, "b.yaml=mine b.yaml.skip= z.yaml=mine"},
	} {
		step.prepare()
		disabled, err := newDisabledSet(step.disabled)
		if err != nil {
			t.Fatal(err)
		}
		if err := stage(dir, step.rendered, disabled); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dir); got != step.want {
			t.Errorf("%s:\n got %s\nwant %s", step.name, got, step.want)
		}
	}
}

func put(t *testing.T, dir, rel, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, rel), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*", "sub/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if data, err := os.ReadFile(path); err == nil && !strings.HasPrefix(filepath.Base(path), ".") {
				found[strings.TrimPrefix(path, dir+"/")] = string(data)
			}
		}
	}
	var out []string
	for _, rel := range slices.Sorted(maps.Keys(found)) {
		out = append(out, rel+"="+found[rel])
	}
	return strings.Join(out, " ")
}

func TestDisableNames(t *testing.T) {
	set, err := newDisabledSet([]string{"coredns", " metrics "})
	if err != nil {
		t.Fatal(err)
	}
	for rel, want := range map[string]bool{"coredns.yaml": true, "coredns/x.yaml": true, "metrics.json": true, "corednsx.yaml": false, "sub/coredns.yaml": false} {
		if got := set.has(rel); got != want {
			t.Errorf("%s: %v", rel, got)
		}
	}
	if _, err := newDisabledSet([]string{"addons"}); err == nil {
		t.Error("the records themselves can be disabled")
	}
}

func TestPackagedManifestsAreGood(t *testing.T) {
	rendered, err := render(manifests.FS(), manifests.Variables{ClusterDNS: clusterDNS(), ClusterDomain: "cluster.local", DataDir: "/var/lib/kedge"}.Map())
	if err != nil {
		t.Fatal(err)
	}
	for rel, data := range rendered {
		objects, err := manifest.Parse(data)
		if err != nil {
			t.Errorf("%s: %v", rel, err)
		}
		for _, obj := range objects {
			if obj.GetKind() == "Pod" || obj.GetKind() == "DaemonSet" {
				t.Errorf("%s: %s is a %s; kedge brings its parts in process", rel, obj.GetName(), obj.GetKind())
			}
		}
	}
}
