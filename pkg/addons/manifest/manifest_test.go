package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/kube"
)

const cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func names(t *testing.T, text string) ([]string, error) {
	t.Helper()
	objects, err := Parse([]byte(text))
	var out []string
	for _, obj := range objects {
		out = append(out, kube.RefOf(obj).String())
	}
	return out, err
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"one":               {cm, []string{"ConfigMap a"}},
		"byte order mark":   {"\xef\xbb\xbf" + cm, []string{"ConfigMap a"}},
		"windows line ends": {strings.ReplaceAll("---\n"+cm+"---\n"+strings.Replace(cm, "a}", "b}", 1), "\n", "\r\n"), []string{"ConfigMap a", "ConfigMap b"}},
		"empty documents":   {"---\n---\n# only a comment\n---\n" + cm + "---\n", []string{"ConfigMap a"}},
		"directive and end": {"%YAML 1.2\n---\n" + cm + "...\n", []string{"ConfigMap a"}},
		"same line":         {"--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ns}}\n", []string{"ConfigMap ns/a"}},
		"separator comment": {"--- # first\n" + cm + "--- # second\n" + strings.Replace(cm, "a}", "b}", 1), []string{"ConfigMap a", "ConfigMap b"}},
		"dashes in text":    {cm + "data:\n  text: |\n    ---\n    -----BEGIN-----\n", []string{"ConfigMap a"}},
		"json":              {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`, []string{"ConfigMap a"}},
		"list": {`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}},
			{"apiVersion":"v1","kind":"ConfigMapList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}]}`,
			[]string{"Secret s", "ConfigMap a", "ConfigMap b"}},
		"same name, other kind or namespace": {cm + "---\n" + strings.Replace(cm, "ConfigMap", "Secret", 1) + "---\n" + strings.Replace(cm, "a}", "a, namespace: ns}", 1),
			[]string{"ConfigMap a", "Secret a", "ConfigMap ns/a"}},
	} {
		got, err := names(t, tc.text)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, tc.want)
		}
	}
}

func TestBrokenFilesSayWhere(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"empty":                {"", "no objects"},
		"comments":             {"# nothing\n---\n", "no objects"},
		"zeros of a power cut": {cm + "\x00\x00\x00", "damaged"},
		"not text":             {"\xff\xfe\x00a", "damaged"},
		"syntax":               {cm + "---\n" + cm + "  key: [1, 2\n", "line 7"},
		"tab":                  {cm + "data:\n\tkey: value\n", "line 5"},
		"duplicate key":        {cm + "---\nkind: A\nkind: B\n", "line 6: key \"kind\" already set in map"},
		"cut in the middle":    {cm + "---\napiVersion: v1\nkind: ConfigMap\nmeta", "line"},
		"no kind":              {cm + "---\n\n# x\napiVersion: v1\n", "line 7: apiVersion and kind must both be set"},
		"no name":              {"apiVersion: v1\nkind: ConfigMap\n", "line 1: the ConfigMap needs metadata.name"},
		"generated name":       {"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n", "new one each time"},
		"metadata is text":     {"apiVersion: v1\nkind: ConfigMap\nmetadata: a\n", "must hold fields"},
		"text":                 {"hello\n", "line 1: this is not a Kubernetes object"},
		"list of text":         {"- a\n- b\n", "line 1: this is not a Kubernetes object"},
		"bad list member":      {"apiVersion: v1\nkind: List\nitems: [a]\n", "item 1 of the list"},
		"yaml's no":            {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: n}\n", "metadata.namespace of the ConfigMap is not text"},
		"number":               {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 12}\n", "metadata.name of the ConfigMap is not text"},
		"twice":                {cm + "---\n" + strings.Replace(cm, "a}", "a, namespace: default}", 1), "ConfigMap default/a is in the file twice"},
	} {
		got, err := names(t, tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") || got != nil {
			t.Errorf("%s: %v %v, want %q", name, got, err, tc.want)
		}
	}
}

func TestServerFieldsAreDropped(t *testing.T) {
	objects, err := Parse([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: u, resourceVersion: '7', managedFields: [], creationTimestamp: null}\ndata: {n: '1'}\nspec: {replicas: 2, share: 1.5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if metadata := objects[0].Object["metadata"].(map[string]any); len(metadata) != 1 {
		t.Errorf("metadata %v", metadata)
	}
	if spec := objects[0].Object["spec"].(map[string]any); spec["replicas"] != int64(2) || spec["share"] != 1.5 {
		t.Errorf("numbers %#v", spec)
	}
}

func TestOrder(t *testing.T) {
	text := ""
	for _, line := range []string{"admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration w", "apps/v1 Deployment d", "v1 Service s", "example.com/v1 Gadget g",
		"apiextensions.k8s.io/v1 CustomResourceDefinition c", "v1 ServiceAccount a", "v1 Namespace x"} {
		f := strings.Fields(line)
		text += "---\napiVersion: " + f[0] + "\nkind: " + f[1] + "\nmetadata: {name: " + f[2] + "}\n"
	}
	objects, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	SortForApply(objects)
	var refs []kube.Ref
	got := ""
	for _, obj := range objects {
		refs = append(refs, kube.RefOf(obj))
		got += obj.GetName()
	}
	if got != "cxadsgw" || !Early(refs[0]) || !Early(refs[1]) || Early(refs[2]) {
		t.Errorf("apply order %s", got)
	}
	SortForPrune(refs)
	got = ""
	for _, ref := range refs {
		got += ref.Name
	}
	if got != "wdsgacx" {
		t.Errorf("prune order %s", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(cm + "---\n" + cm))
	f.Add([]byte(`{"kind":"List","apiVersion":"v1","items":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := Parse(data)
		if (err == nil) != (len(objects) > 0) {
			t.Errorf("%d objects, %v", len(objects), err)
		}
		for _, obj := range objects {
			if obj.GetName() == "" || obj.GetKind() == "" || obj.GetAPIVersion() == "" {
				t.Errorf("%v", obj.Object)
			}
		}
	})
}
