package convert

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := kjson.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

type converter = func(map[string]any, string, string) error

// versions lists each kind's versions, the stored one first.
func versions() map[string]struct {
	convert  converter
	versions []string
} {
	return map[string]struct {
		convert  converter
		versions []string
	}{
		"NodeUnit":   {NodeUnit, []string{"v1alpha2", "v1alpha1"}},
		"NodeGroup":  {NodeGroup, []string{"v1alpha2", "v1alpha1"}},
		"NodePool":   {NodePool, []string{"v1beta2", "v1beta1", "v1alpha1"}},
		"YurtAppSet": {YurtAppSet, []string{"v1beta1", "v1alpha1"}},
	}
}

func TestNodeUnit(t *testing.T) {
	got := object(t, `{metadata: {name: u}, spec: {type: edge, setnode: {labels: {a: b}}, taints: [{key: k, effect: NoSchedule}]}, status: {readyrate: 1/1}}`)
	if err := NodeUnit(got, "v1alpha1", "v1alpha2"); err != nil {
		t.Fatal(err)
	}
	want := object(t, `{metadata: {name: u}, spec: {type: edge, autonomyLevel: L3, setNode: {labels: {a: b}, taints: [{key: k, effect: NoSchedule}]}}, status: {readyRate: 1/1}}`)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if err := NodeUnit(got, "v1alpha2", "v1beta1"); err == nil {
		t.Error("a version that is not there")
	}
}

func TestNothingIsLost(t *testing.T) {
	all := versions()
	for name, tc := range map[string]struct{ kind, version, text string }{
		"level":        {"NodeUnit", "v1alpha2", `{spec: {autonomyLevel: L4, unitClusterInfo: {storageType: sqlite}, setNode: {taints: []}}}`},
		"lower case":   {"NodeGroup", "v1alpha1", `{metadata: {annotations: {a: b}}, spec: {autofindnodekeys: [store], nodeunits: [x]}}`},
		"selector":     {"NodePool", "v1alpha1", `{spec: {type: Edge, selector: {matchLabels: {a: b}}, labels: {c: d}}}`},
		"leader":       {"NodePool", "v1beta2", `{spec: {type: Edge, hostNetwork: true, leaderReplicas: 3, poolScopeMetadata: [{group: g}]}}`},
		"patch":        {"YurtAppSet", "v1alpha1", appSet},
		"tweaks":       {"YurtAppSet", "v1beta1", `{spec: {nodepoolSelector: {matchLabels: {a: b}}, pools: [x], workload: {workloadTemplate: {deploymentTemplate: {spec: {}}}, workloadTweaks: [{pools: [x], tweaks: {containerImages: [{name: a, targetImage: b}]}}]}}}`},
		"broken stash": {"NodePool", "v1beta1", `{metadata: {annotations: {grid.kedge.io/kept-spec: "{"}}, spec: {type: Edge}}`},
	} {
		kind := all[tc.kind]
		for _, other := range kind.versions {
			before, got := object(t, tc.text), object(t, tc.text)
			if other == tc.version {
				continue
			}
			if err := kind.convert(got, tc.version, other); err != nil {
				t.Fatal(name, err)
			}
			if err := kind.convert(got, other, tc.version); err != nil {
				t.Fatal(name, err)
			}
			if !reflect.DeepEqual(got["spec"], before["spec"]) {
				t.Errorf("%s through %s: %v", name, other, got["spec"])
			}
		}
	}
}

func TestAChangeWinsOverWhatWasKept(t *testing.T) {
	got := object(t, `{spec: {type: Edge, leaderReplicas: 3}}`)
	if err := NodePool(got, "v1beta2", "v1beta1"); err != nil {
		t.Fatal(err)
	}
	got["spec"].(map[string]any)["type"] = "Cloud"
	if err := NodePool(got, "v1beta1", "v1beta2"); err != nil {
		t.Fatal(err)
	}
	if want := object(t, `{spec: {type: Cloud}}`); !reflect.DeepEqual(got["spec"], want["spec"]) {
		t.Errorf("%v", got)
	}
}

const appSet = `
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  revisionHistoryLimit: 5
  workloadTemplate:
    deploymentTemplate:
      metadata: {labels: {app: web}}
      spec:
        replicas: 1
        selector: {matchLabels: {app: web}}
        template:
          metadata: {labels: {app: web}}
          spec:
            containers:
            - {name: side, image: "side:1"}
            - {name: web, image: "web:1"}
  topology:
    pools:
    - name: first
      nodeSelectorTerm: {matchExpressions: [{key: apps.openyurt.io/nodepool, operator: In, values: [beijing]}]}
      replicas: 3
      tolerations: [{operator: Exists}]
      patch: {spec: {template: {spec: {containers: [{name: web, image: "web:2"}], hostNetwork: true}}}}
    - name: hangzhou
`

func TestYurtAppSetKeepsPatchAndTolerations(t *testing.T) {
	got := object(t, appSet)
	if err := YurtAppSet(got, "v1alpha1", "v1beta1"); err != nil {
		t.Fatal(err)
	}
	spec := got["spec"].(map[string]any)
	data, err := json.Marshal(spec["workload"].(map[string]any)["workloadTweaks"])
	if err != nil || !reflect.DeepEqual(spec["pools"], []any{"beijing", "hangzhou"}) {
		t.Fatal(err, spec["pools"])
	}
	for _, part := range []string{
		`"pools":["beijing"]`, `"replicas":3`,
		`{"operation":"add","path":"/spec/template/spec/tolerations","value":[{"operator":"Exists"}]}`,
		`/image","value":"web:2"}`, `{"operation":"add","path":"/spec/template/spec/hostNetwork","value":true}`,
	} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
}

// FuzzConvert takes any spec through any two versions: no panic, and it comes back as it was.
func FuzzConvert(f *testing.F) {
	f.Add("YurtAppSet", 1, 0, `{"workloadTemplate":{"deploymentTemplate":{"spec":{}}},"topology":{"pools":[{"name":"a","patch":{"spec":null}}]}}`)
	f.Add("NodeUnit", 0, 1, `{"autonomyLevel":"L3","setNode":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`)
	f.Add("NodeGroup", 1, 0, `{"autofindnodekeys":["a"]}`)
	f.Add("NodePool", 2, 0, `{"selector":{},"type":"Edge"}`)
	data, _ := yaml.YAMLToJSON([]byte(appSet))
	f.Add("YurtAppSet", 1, 0, string(data))
	f.Fuzz(func(t *testing.T, kind string, from, to int, text string) {
		k, ok := versions()[kind]
		var spec map[string]any
		if !ok || kjson.Unmarshal([]byte(text), &spec) != nil || spec == nil || len(text) > 10000 {
			return
		}
		a, b := k.versions[abs(from)%len(k.versions)], k.versions[abs(to)%len(k.versions)]
		if kind == "NodeUnit" && a == "v1alpha1" { // fields that the schema drops before
			delete(spec, "setNode")
			delete(spec, "autonomyLevel")
		}
		if kind == "NodeGroup" && a == "v1alpha1" {
			delete(spec, "nodeUnits")
			delete(spec, "autoFindNodeKeys")
		}
		content := map[string]any{"spec": runtime.DeepCopyJSON(spec)}
		if a == b || k.convert(content, a, b) != nil {
			return
		}
		if err := k.convert(content, b, a); err != nil {
			t.Fatalf("there and not back: %v", err)
		}
		if got := section(content, "spec"); len(spec)+len(got) > 0 && !reflect.DeepEqual(got, spec) {
			t.Fatalf("%s from %s through %s: %v became %v", kind, a, b, spec, got)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
