package addons

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func refs(names ...string) []kube.Ref {
	var out []kube.Ref
	for _, name := range names {
		out = append(out, kube.Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: "n", Name: name})
	}
	return out
}

func recordOf(source, server string, objects ...string) v1alpha1.AddOn {
	r := v1alpha1.AddOn{ObjectMeta: metav1.ObjectMeta{Name: addonName(source)}, Spec: v1alpha1.AddOnSpec{Source: source, Server: server}}
	for _, ref := range refs(objects...) {
		r.Status.Objects = append(r.Status.Objects, v1alpha1.ObjectRef(ref))
	}
	return r
}

func TestDecide(t *testing.T) {
	words := map[action]string{leave: "leave", apply: "apply", remove: "remove", report: "report"}
	for name, tc := range map[string]struct {
		files    []file
		records  []v1alpha1.AddOn
		disabled []string
		want     string
	}{
		"new file":                         {files: []file{{rel: "a.yaml", refs: refs("x")}}, want: "a apply"},
		"nothing due":                      {files: []file{{rel: "a.yaml", refs: refs("x"), done: true}}, want: "a leave"},
		"still being written":              {files: []file{{rel: "a.yaml", pending: true}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, want: "a leave"},
		"broken":                           {files: []file{{rel: "a.yaml", problem: "line 3"}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, want: "a report line 3"},
		"just missing":                     {files: []file{{rel: "a.yaml", missing: true}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, want: "a leave"},
		"gone":                             {files: []file{{rel: "a.yaml", missing: true, gone: true}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, want: "a remove"},
		"gone, never applied":              {files: []file{{rel: "a.yaml", missing: true, gone: true}}, want: "a leave"},
		"skipped":                          {files: []file{{rel: "a.yaml", skip: true, pending: true}}, want: "a report hands off: a.yaml.skip exists"},
		"skipped and gone":                 {files: []file{{rel: "a.yaml", skip: true, missing: true, gone: true}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, want: "a leave"},
		"disabled":                         {files: []file{{rel: "a.yaml", refs: refs("x")}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, disabled: []string{"a"}, want: "a remove"},
		"disabled, broken":                 {files: []file{{rel: "a.yaml", problem: "line 3"}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, disabled: []string{"a"}, want: "a remove"},
		"disabled but skipped":             {files: []file{{rel: "a.yaml", skip: true}}, records: []v1alpha1.AddOn{recordOf("a.yaml", "me", "x")}, disabled: []string{"a"}, want: "a report hands off: a.yaml.skip exists"},
		"disabled folder":                  {files: []file{{rel: "a/b.yaml", refs: refs("x")}}, records: []v1alpha1.AddOn{recordOf("a/b.yaml", "me", "x")}, disabled: []string{"a"}, want: "a.b remove"},
		"file of another server":           {records: []v1alpha1.AddOn{recordOf("a.yaml", "other", "x")}, want: ""},
		"two new files with one object":    {files: []file{{rel: "b.yaml", refs: refs("x")}, {rel: "a.yaml", refs: refs("x")}}, want: "a apply; b report ConfigMap n/x is also in a.yaml: keep it in one file"},
		"a file takes another's object":    {files: []file{{rel: "b.yaml", refs: refs("x")}, {rel: "a.yaml", refs: refs("x")}}, records: []v1alpha1.AddOn{recordOf("b.yaml", "me", "x")}, want: "a report ConfigMap n/x is also in b.yaml: keep it in one file; b apply"},
		"an object moves":                  {files: []file{{rel: "b.yaml", refs: refs("y")}, {rel: "a.yaml", refs: refs("x")}}, records: []v1alpha1.AddOn{recordOf("b.yaml", "me", "x", "y")}, want: "a apply; b apply"},
		"a file is renamed":                {files: []file{{rel: "b.yaml", missing: true}, {rel: "a.yaml", refs: refs("x")}}, records: []v1alpha1.AddOn{recordOf("b.yaml", "me", "x")}, want: "a apply; b leave"},
		"same object in a disabled add-on": {files: []file{{rel: "a.yaml", refs: refs("x")}, {rel: "b.yaml", refs: refs("x")}}, disabled: []string{"a"}, want: "a leave; b apply"},
	} {
		disabled, err := newDisabledSet(tc.disabled)
		if err != nil {
			t.Fatal(err)
		}
		steps, _ := decide(tc.files, tc.records, disabled)
		var got []string
		for _, s := range steps {
			got = append(got, strings.TrimSpace(fmt.Sprint(s.name, " ", words[s.do], " ", s.message)))
		}
		if text := strings.Join(got, "; "); text != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, text, tc.want)
		}
	}
}

func TestDropped(t *testing.T) {
	for name, tc := range map[string]struct {
		recorded, wanted, others []string
		want                     string
	}{
		"nothing":           {[]string{"x"}, []string{"x"}, nil, ""},
		"one":               {[]string{"x", "y"}, []string{"x"}, nil, "y"},
		"all":               {[]string{"x", "y"}, nil, nil, "xy"},
		"moved to another":  {[]string{"x", "y"}, []string{"x"}, []string{"y"}, ""},
		"another has other": {[]string{"x", "y"}, []string{"x"}, []string{"z"}, "y"},
	} {
		claims := map[string]string{}
		for _, ref := range refs(tc.others...) {
			claims[manifest.Identity(ref)] = "other.yaml"
		}
		got := ""
		for _, ref := range dropped(recordOf("a.yaml", "me", tc.recorded...).Status.Objects, refs(tc.wanted...), "a.yaml", claims) {
			got += ref.Name
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	// Another version of the kind is the same object.
	old := []v1alpha1.ObjectRef{{APIVersion: "batch/v1beta1", Kind: "CronJob", Namespace: "default", Name: "c"}}
	if got := dropped(old, []kube.Ref{{APIVersion: "batch/v1", Kind: "CronJob", Name: "c"}}, "a.yaml", nil); len(got) != 0 {
		t.Errorf("a change of version drops %v", got)
	}
}

func TestClaimsOfFilesThatCannotBeRead(t *testing.T) {
	files := []file{{rel: "a.yaml", refs: refs("a")}, {rel: "broken.yaml", problem: "line 1"}, {rel: "skipped.yaml", skip: true}, {rel: "gone.yaml", missing: true, gone: true}}
	records := []v1alpha1.AddOn{recordOf("broken.yaml", "me", "b"), recordOf("skipped.yaml", "me", "s"), recordOf("gone.yaml", "me", "g"), recordOf("far.yaml", "other", "f")}
	_, claims := decide(files, records, disabledSet{})
	var got []string
	for id, rel := range claims {
		got = append(got, id[strings.LastIndex(id, "|")+1:]+"="+rel)
	}
	slices.Sort(got)
	if want := []string{"a=a.yaml", "b=broken.yaml", "f=far.yaml", "s=skipped.yaml"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNames(t *testing.T) {
	for rel, want := range map[string]string{"app.yaml": "app", "team/My_App.yml": "team.my-app", "my.app.json": "my.app", "-x-.yaml": "x", "Ünï.yaml": "n", "a b/c.yaml": "a-b.c"} {
		if got := addonName(rel); got != want {
			t.Errorf("%s: %q, want %q", rel, got, want)
		}
	}
	taken := recordOf("z/app.yaml", "me")
	taken.Name = "app"
	files := []file{{rel: "app.json"}, {rel: "app.yaml"}, {rel: "z/app.yaml"}, {rel: "ö.yaml"}, {rel: strings.Repeat("long/", 60) + "x.yaml"}}
	names := assignNames(files, []v1alpha1.AddOn{taken})
	seen := map[string]bool{}
	for _, f := range files {
		name := names[f.rel]
		if seen[name] || name == "" || len(name) > 253 || strings.Trim(name, "-.") != name {
			t.Errorf("%s is named %q", f.rel, name)
		}
		seen[name] = true
	}
	if names["z/app.yaml"] != "app" {
		t.Errorf("a record lost its name: %v", names)
	}
	again := assignNames(files[:1], []v1alpha1.AddOn{taken})
	if again["app.json"] != names["app.json"] {
		t.Error("names depend on the other files")
	}
}
