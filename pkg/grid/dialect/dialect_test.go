package dialect

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid/check"
	"github.com/kedge-io/kedge/pkg/grid/placement"
)

// fixtures are objects as users of the originals have them.
func fixtures(t *testing.T) map[string]*unstructured.Unstructured {
	t.Helper()
	files, err := filepath.Glob("../testdata/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	out := map[string]*unstructured.Unstructured{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			obj := parse(t, string(doc))
			out[strings.TrimSuffix(filepath.Base(f), ".yaml")+"/"+obj.GetKind()+"/"+obj.GetName()] = obj
		}
	}
	return out
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return obj
}

func checks() map[string]func(obj, old *unstructured.Unstructured) conversion.Verdict {
	return map[string]func(obj, old *unstructured.Unstructured) conversion.Verdict{
		"DeploymentGrid": check.Grid(placement.Deployment), "StatefulSetGrid": check.Grid(placement.StatefulSet), "ServiceGrid": check.ServiceGrid,
		"NodeUnit": check.NodeUnit, "NodeGroup": check.NodeGroup, "NodePool": check.NodePool,
		"YurtAppSet": check.AppSet, "YurtAppDaemon": check.AppSet, "UnitedDeployment": check.AppSet,
	}
}

func TestFixturesAreGood(t *testing.T) {
	for name, obj := range fixtures(t) {
		if v := checks()[obj.GetKind()](obj, nil); len(v.Errors)+len(v.Warnings) > 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	grid := `{apiVersion: superedge.io/v1, kind: %s, metadata: {name: n%s}, spec: {gridUniqKey: zone, %s}}`
	good := `selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}`
	text := func(kind, annotations, spec string) string {
		return strings.NewReplacer("%s, metadata: {name: n%s}", kind+", metadata: {name: n"+annotations+"}", "%s}}", spec+"}}").Replace(grid)
	}
	appset := `{apiVersion: apps.openyurt.io/v1beta1, kind: YurtAppSet, metadata: {name: n}, spec: {pools: [p], workload: {workloadTemplate: {deploymentTemplate: {spec: {` + good + `}}}, workloadTweaks: [%s]}}}`
	for name, tc := range map[string]struct{ text, field, detail string }{
		"spelling":           {text("DeploymentGrid", "", "template: {replcas: 2, "+good+"}"), "spec.template.replcas", "spelling"},
		"deep":               {text("DeploymentGrid", "", "templatePool: {x: {"+strings.Replace(good, "image:", "imagee:", 1)+"}}, defaultTemplateName: x"), "spec.templatePool[x].template.spec.containers[0].imagee", ""},
		"type":               {text("DeploymentGrid", "", "template: {replicas: two}"), "spec.template", "replicas"},
		"no template":        {text("DeploymentGrid", "", "defaultTemplateName: default"), "spec.template", "spec.defaultTemplateName means it"},
		"template not there": {text("StatefulSetGrid", "", "template: {serviceName: s, "+good+"}, templates: {shop: next}"), "spec.templates[shop]", "next"},
		"own key":            {text("DeploymentGrid", "", "template: {"+strings.Replace(good, "containers:", "nodeSelector: {zone: a}, containers:", 1)+"}"), "spec.template.template.spec.nodeSelector[zone]", "the grid sets it"},
		"selector":           {text("DeploymentGrid", "", "template: {"+strings.Replace(good, "{a: b}", "{a: c}", 1)+"}"), "spec.template.template.metadata.labels", "selector"},
		"pace":               {text("DeploymentGrid", ", annotations: {grid.kedge.io/max-unavailable-units: all}", "template: {"+good+"}"), "metadata.annotations[grid.kedge.io/max-unavailable-units]", "number"},
		"no port":            {text("ServiceGrid", "", "template: {selector: {a: b}}"), "spec.template.ports", "port"},
		"level":              {`{apiVersion: site.superedge.io/v1alpha2, kind: NodeUnit, metadata: {name: n}, spec: {autonomyLevel: L4}}`, "spec.autonomyLevel", "L3"},
		"lower case":         {`{apiVersion: site.superedge.io/v1alpha1, kind: NodeGroup, metadata: {name: n}, spec: {autofindnodekeys: ["a b"]}}`, "spec.autofindnodekeys[0]", ""},
		"taint":              {`{apiVersion: site.superedge.io/v1alpha1, kind: NodeUnit, metadata: {name: n}, spec: {taints: [{key: a, effect: Never}]}}`, "spec.taints[0].effect", "NoSchedule"},
		"fights itself":      {`{apiVersion: site.superedge.io/v1alpha2, kind: NodeUnit, metadata: {name: n}, spec: {selector: {matchLabels: {a: b}}, setNode: {labels: {a: c}}}}`, "spec.setNode.labels[a]", "come and go"},
		"image":              {strings.Replace(appset, "%s", "{pools: [p], tweaks: {containerImages: [{name: x, targetImage: z}]}}", 1), "spec.workload.workloadTweaks[0].tweaks.containerImages[0].name", "no such container"},
		"path":               {strings.Replace(appset, "%s", "{pools: [p], tweaks: {patches: [{path: /kind, operation: replace, value: Pod}]}}", 1), "spec.workload.workloadTweaks[0].tweaks.patches[0].path", "/spec/"},
		"two templates":      {`{apiVersion: apps.openyurt.io/v1alpha1, kind: YurtAppDaemon, metadata: {name: n}, spec: {workloadTemplate: {}}}`, "spec.workloadTemplate", "exactly one"},
		"pool by hand":       {`{apiVersion: apps.openyurt.io/v1alpha1, kind: UnitedDeployment, metadata: {name: n}, spec: {workloadTemplate: {deploymentTemplate: {spec: {` + good + `}}}, topology: {pools: [{name: a, nodeSelectorTerm: {matchExpressions: [{key: disk, operator: Exists}]}}]}}}`, "spec.topology.pools[0].nodeSelectorTerm.matchExpressions[0]", "apps.openyurt.io/nodepool"},
	} {
		obj := parse(t, tc.text)
		v := checks()[obj.GetKind()](obj, nil)
		if !slices.ContainsFunc(v.Errors, func(e *field.Error) bool {
			return e.Field == tc.field && strings.Contains(e.Error(), tc.detail)
		}) {
			t.Errorf("%s: %v", name, v.Errors)
		}
	}
}

func TestCanary(t *testing.T) {
	obj := fixtures(t)["superedge-canary/DeploymentGrid/canary-demo"]
	s, err := Grid(obj)
	if err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]string{"zone-1": "nginx:1.9.1", "zone-2": "nginx:1.7.9"} {
		w, err := s.Render(unit)
		if err != nil {
			t.Fatal(err)
		}
		list, _, _ := unstructured.NestedSlice(w, "spec", "template", "spec", "containers")
		if got := list[0].(map[string]any)["image"]; got != want {
			t.Errorf("%s: %v", unit, got)
		}
	}
	if got := UnusedTemplates(obj); got != nil {
		t.Error(got)
	}
	_ = unstructured.SetNestedMap(obj.Object, map[string]any{}, "spec", "templatePool", "old")
	if got := UnusedTemplates(obj); !slices.Equal(got, []string{"old"}) {
		t.Error(got)
	}
}

func TestServiceAndNames(t *testing.T) {
	all := fixtures(t)
	svc, err := Service(all["superedge-grids/ServiceGrid/echogrid-demo"])
	if err != nil || svc.GetName() != "echogrid-demo-svc" || svc.GetAnnotations()["topologyKeys"] != `["zone"]` {
		t.Errorf("%v, %v", svc, err)
	}
	grids := []*unstructured.Unstructured{all["superedge-grids/StatefulSetGrid/statefulsetgrid-demo"], all["superedge-grids/DeploymentGrid/deploymentgrid-demo"]}
	if got := Names(grids, "default", "echogrid-demo-svc"); got != `{"statefulsetgrid-demo":"zone"}` {
		t.Error(got)
	}
	if Names(grids, "default", "other") != "" || Names(grids, "other", "echogrid-demo-svc") != "" {
		t.Error("names of a Service that is not theirs")
	}
}

func TestAppSet(t *testing.T) {
	obj := fixtures(t)["openyurt/YurtAppSet/web"]
	pools := map[string]Pool{
		"hangzhou": {Name: "hangzhou", Taints: []corev1.Taint{{Key: "apps.openyurt.io/example", Value: "hangzhou", Effect: "NoSchedule"}}},
		"edge":     {Name: "edge", Labels: map[string]string{"yurt-pool-type": "edge"}}, "other": {Name: "other"},
	}
	_ = unstructured.SetNestedStringSlice(obj.Object, []string{"hangzhou", "nowhere"}, "spec", "pools")
	s, missing, err := AppSet(obj, pools, func(string) bool { return false })
	if err != nil || !reflect.DeepEqual(s.Only, map[string]bool{"hangzhou": true, "edge": true}) || !slices.Equal(missing, []string{"nowhere"}) {
		t.Fatalf("%+v, %v, %v", s, missing, err)
	}
	tweaked, _ := s.Render("hangzhou")
	plain, _ := s.Render("edge")
	for want, w := range map[int64]map[string]any{3: tweaked, 2: plain} {
		if got, _, _ := unstructured.NestedInt64(w, "spec", "replicas"); got != want {
			t.Errorf("replicas %d, want %d", got, want)
		}
	}
	list, _, _ := unstructured.NestedSlice(tweaked, "spec", "template", "spec", "containers")
	tolerations, _, _ := unstructured.NestedSlice(tweaked, "spec", "template", "spec", "tolerations")
	if list[0].(map[string]any)["image"] != "nginx:1.9.1" || len(tolerations) != 1 {
		t.Errorf("%v %v", list, tolerations)
	}
	if s.Templates["edge"].Hash == s.Templates["hangzhou"].Hash {
		t.Error("different workloads have one hash")
	}
}

func TestOldSets(t *testing.T) {
	template := `workloadTemplate: {statefulSetTemplate: {spec: {serviceName: s, template: {spec: {containers: [{name: c, image: a}]}}}}}`
	obj := parse(t, `{apiVersion: apps.openyurt.io/v1alpha1, kind: UnitedDeployment, metadata: {name: u}, spec: {`+template+`, topology: {pools: [
		{name: x, replicas: 4, patch: {spec: {template: {spec: {containers: [{name: c, image: b}]}}}}, tolerations: [{operator: Exists}]}]}}}`)
	s, _, err := AppSet(obj, nil, func(string) bool { return true })
	if err != nil || s.Kind != placement.StatefulSet || !s.Only["x"] {
		t.Fatal(s, err)
	}
	w, _ := s.Render("x")
	pod, _, _ := unstructured.NestedMap(w, "spec", "template", "spec")
	if pod["containers"].([]any)[0].(map[string]any)["image"] != "b" || len(pod["tolerations"].([]any)) != 1 {
		t.Errorf("%v", pod)
	}
	obj = parse(t, `{apiVersion: apps.openyurt.io/v1alpha1, kind: YurtAppDaemon, metadata: {name: d}, spec: {`+template+`, nodepoolSelector: {matchLabels: {e: f}}}}`)
	s, _, err = AppSet(obj, map[string]Pool{"x": {Labels: map[string]string{"e": "f"}}, "y": {}}, nil)
	if err != nil || !reflect.DeepEqual(s.Only, map[string]bool{"x": true}) {
		t.Fatal(s, err)
	}
}

func TestFederationIsNotSilent(t *testing.T) {
	all := fixtures(t)
	for _, name := range []string{"superedge-grids/DeploymentGrid/deploymentgrid-demo", "superedge-grids/ServiceGrid/servicegrid-demo", "superedge-grids/StatefulSetGrid/statefulsetgrid-demo"} {
		obj := all[name].DeepCopy()
		check := checks()[obj.GetKind()]
		if v := check(obj, nil); len(v.Warnings) > 0 {
			t.Errorf("%s: %v", name, v.Warnings)
		}
		obj.SetLabels(map[string]string{"superedge.io/fed": "yes"})
		if v := check(obj, nil); len(v.Errors) > 0 || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "metadata.labels[superedge.io/fed] has no effect") {
			t.Errorf("%s: %v %v", name, v.Warnings, v.Errors)
		}
	}
}
