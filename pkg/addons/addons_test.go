package addons

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
)

const (
	namespaceYAML = "apiVersion: v1\nkind: Namespace\nmetadata: {name: $NS}\n"
	oneYAML       = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: $NS}\ndata: {key: first}\n"
	twoYAML       = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two, namespace: $NS}\ndata: {key: second}\n"
)

func TestPackagedAddonsAreApplied(t *testing.T) {
	l := newLab(t)
	l.start()
	for _, file := range []string{"addons.yaml", "coredns.yaml", "local-storage.yaml", "rbac.yaml"} {
		r := l.record(file, v1alpha1.ReasonApplied, "object")
		if !r.Spec.Packaged || r.Status.Checksum == "" || len(r.Status.Objects) == 0 || len(r.Status.Kinds) == 0 {
			t.Errorf("%s: %+v", file, r)
		}
	}
	service, err := l.get("v1", "Service", "kube-system", "kube-dns")
	if err != nil || service.GetLabels()["service.kubernetes.io/service-proxy-name"] != "kedge-dns" {
		t.Errorf("DNS service: %v %v", err, service)
	}
	// A second start writes nothing.
	versions := map[string]string{}
	for _, file := range []string{"addons", "coredns", "local-storage", "rbac"} {
		obj, err := l.get("addons.kedge.io/v1alpha1", "AddOn", "", file)
		if err != nil {
			t.Fatal(err)
		}
		versions[file] = obj.GetResourceVersion()
	}
	l.halt()
	l.start()
	for file, version := range versions {
		if obj, err := l.get("addons.kedge.io/v1alpha1", "AddOn", "", file); err != nil || obj.GetResourceVersion() != version {
			t.Errorf("AddOn %s was written again: %v", file, err)
		}
	}
	if again, err := l.get("v1", "Service", "kube-system", "kube-dns"); err != nil || again.GetResourceVersion() != service.GetResourceVersion() {
		t.Errorf("Service was written again: %v", err)
	}
}

func TestLifeOfAFile(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("app.yaml", namespaceYAML+"---\n"+oneYAML+"---\n"+twoYAML)
	l.configMap("one", "first")
	l.configMap("two", "second")
	r := l.record("app.yaml", v1alpha1.ReasonApplied, "3 objects")
	if want := []string{"v1/ConfigMap", "v1/Namespace"}; !slices.Equal(r.Status.Kinds, want) {
		t.Errorf("kinds %v, want %v", r.Status.Kinds, want)
	}

	l.put("app.yaml", namespaceYAML+"---\n"+strings.Replace(oneYAML, "first", "changed", 1)) // edited, one dropped
	l.configMap("one", "changed")
	l.configMap("two", "")
	l.record("app.yaml", v1alpha1.ReasonApplied, "2 objects")

	l.put("app.yaml", namespaceYAML+"---\n"+oneYAML+"  broken") // broken: nothing changes
	l.record("app.yaml", v1alpha1.ReasonInvalid, "line")
	l.configMap("one", "changed")

	l.put("app.yaml", "") // emptied, as by a power cut: nothing changes
	l.record("app.yaml", v1alpha1.ReasonInvalid, "no objects")
	l.configMap("one", "changed")

	l.put("app.yaml", namespaceYAML+"---\n"+oneYAML)
	l.configMap("one", "first")
	l.messages(r, "Applied", "Invalid")

	l.remove("app.yaml")
	l.noRecord("app.yaml")
	l.configMap("one", "")
	l.messages(r, "Removed")
}

func TestRefusedFileChangesNothing(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("ns.yaml", namespaceYAML)
	l.record("ns.yaml", v1alpha1.ReasonApplied, "1 object")
	l.put("app.yaml", oneYAML+"---\n"+strings.Replace(twoYAML, "\ndata:", "\nspelling: mistake\ndata:", 1))
	l.record("app.yaml", v1alpha1.ReasonInvalid, "/two: .spelling: field not declared in schema")
	l.configMap("one", "")
	l.put("app.yaml", oneYAML+"---\n"+twoYAML)
	l.configMap("two", "second")
}

func TestDefinitionsBeforeInstances(t *testing.T) {
	l := newLab(t)
	l.start()
	// The instance's file sorts first, and both come at once.
	l.put("a-instance.yaml", namespaceYAML+"---\napiVersion: $NS.example.com/v1\nkind: Gadget\nmetadata: {name: g, namespace: $NS}\nspec: {size: 3}\n")
	l.put("z-definition.yaml", gadgetCRD)
	l.record("a-instance.yaml", v1alpha1.ReasonApplied, "2 objects")
	if _, err := l.get(l.ns+".example.com/v1", "Gadget", l.ns, "g"); err != nil {
		t.Error(err)
	}
	l.remove("a-instance.yaml")
	l.remove("z-definition.yaml")
	l.noRecord("z-definition.yaml")
	l.noRecord("a-instance.yaml")
}

const gadgetCRD = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.$NS.example.com}
spec:
  group: $NS.example.com
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

func TestMissingKindIsRetried(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("ns.yaml", namespaceYAML)
	l.put("instance.yaml", "apiVersion: $NS.example.com/v1\nkind: Gadget\nmetadata: {name: g, namespace: $NS}\n")
	l.record("instance.yaml", v1alpha1.ReasonWaiting, "Gadget")
	l.put("sub/dir/definition.json", "{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":["+gadgetJSON+"]}")
	l.record("instance.yaml", v1alpha1.ReasonApplied, "1 object")
	if r := l.record("sub/dir/definition.json", v1alpha1.ReasonApplied, "1 object"); r.Name != "sub.dir.definition" {
		t.Errorf("name is %s", r.Name)
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "sub")); err != nil {
		t.Fatal(err)
	}
	l.noRecord("sub/dir/definition.json")
}

const gadgetJSON = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"gadgets.$NS.example.com"},
"spec":{"group":"$NS.example.com","scope":"Namespaced","names":{"kind":"Gadget","listKind":"GadgetList","plural":"gadgets","singular":"gadget"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`

func TestMovedObjectIsNotRemoved(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("ns.yaml", namespaceYAML)
	l.put("a.yaml", oneYAML+"---\n"+twoYAML)
	l.configMap("two", "second")
	before, err := l.get("v1", "ConfigMap", l.ns, "two")
	if err != nil {
		t.Fatal(err)
	}
	l.put("b.yaml", twoYAML)
	l.record("b.yaml", v1alpha1.ReasonInvalid, "also in a.yaml")
	l.put("a.yaml", oneYAML)
	l.record("b.yaml", v1alpha1.ReasonApplied, "1 object")
	l.record("a.yaml", v1alpha1.ReasonApplied, "1 object")
	if err := os.Rename(filepath.Join(l.dir, "b.yaml"), filepath.Join(l.dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	l.record("c.yaml", v1alpha1.ReasonApplied, "1 object")
	l.noRecord("b.yaml")
	if after, err := l.get("v1", "ConfigMap", l.ns, "two"); err != nil || after.GetUID() != before.GetUID() {
		t.Errorf("the object was made anew: %v", err)
	}
}

func TestSkipAndDisable(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("app.yaml", namespaceYAML+"---\n"+oneYAML)
	l.configMap("one", "first")
	l.put("app.yaml.skip", "")
	l.record("app.yaml", v1alpha1.ReasonSkipped, "app.yaml.skip")
	l.put("app.yaml", namespaceYAML+"---\n"+strings.Replace(oneYAML, "first", "skipped", 1))
	l.put("witness.yaml", strings.Replace(twoYAML, "second", "v1", 1))
	l.configMap("two", "v1")
	l.configMap("one", "first")
	l.halt()
	l.start() // and over a restart, with the file gone
	l.remove("app.yaml")
	l.put("witness.yaml", strings.Replace(twoYAML, "second", "v2", 1))
	l.configMap("two", "v2")
	l.halt()
	l.start()
	l.put("witness.yaml", strings.Replace(twoYAML, "second", "v3", 1))
	l.configMap("two", "v3")
	l.configMap("one", "first")
	l.put("app.yaml", namespaceYAML+"---\n"+strings.Replace(oneYAML, "first", "again", 1))
	l.remove("app.yaml.skip")
	l.configMap("one", "again")

	l.halt()
	l.cfg.Disabled = []string{"app", "local-storage"}
	l.start()
	l.noRecord("app.yaml")
	l.noRecord("local-storage.yaml")
	l.configMap("one", "")
	if _, err := os.Stat(filepath.Join(l.dir, "local-storage.yaml")); !os.IsNotExist(err) {
		t.Errorf("packaged file of a disabled add-on: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "app.yaml")); err != nil {
		t.Errorf("the owner's file: %v", err)
	}
}

func TestDeletedWhileStopped(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("ns.yaml", namespaceYAML)
	l.put("app.yaml", oneYAML)
	l.configMap("one", "first")
	l.halt()
	l.remove("app.yaml")
	l.start()
	l.configMap("one", "")
	l.noRecord("app.yaml")
}

func TestLinksAndHalfWrittenFiles(t *testing.T) {
	l := newLab(t)
	l.start()
	l.put("ns.yaml", namespaceYAML)
	elsewhere := t.TempDir()
	target := filepath.Join(elsewhere, "target.yaml")
	if err := os.WriteFile(target, []byte(strings.ReplaceAll(oneYAML, "$NS", l.ns)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(l.dir, "linked")); err != nil {
		t.Fatal(err)
	}
	l.configMap("one", "first")
	if err := os.WriteFile(target, []byte(strings.ReplaceAll(strings.Replace(oneYAML, "first", "through the link", 1), "$NS", l.ns)), 0o644); err != nil {
		t.Fatal(err)
	}
	l.configMap("one", "through the link")

	slow, err := os.Create(filepath.Join(l.dir, "slow.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(twoYAML, "$NS", l.ns)
	if _, err := slow.WriteString(text); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"v1", "v2"} { // each takes longer than the quiet time; the slow file is still open
		l.put("witness.yaml", strings.NewReplacer("one", "witness", "first", value).Replace(oneYAML))
		l.configMap("witness", value)
	}
	if _, err := l.get("v1", "ConfigMap", l.ns, "two"); err == nil {
		t.Error("a file was applied while it was being written")
	}
	if err := slow.Close(); err != nil {
		t.Fatal(err)
	}
	l.configMap("two", "second")
	if err := os.RemoveAll(elsewhere); err != nil {
		t.Fatal(err)
	}
}
