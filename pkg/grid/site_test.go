package grid

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/test/plane"
)

func TestGridsOnARealAPI(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	s := newScene(t)
	s.node("n1", map[string]string{"zone": "zone-1"})
	s.node("n2", map[string]string{"zone": "zone-2"})
	s.node("n3", map[string]string{"zone": "zone-2"})
	t.Run("canary", func(t *testing.T) { s.with(t).testCanary() })
	t.Run("grids", func(t *testing.T) { s.with(t).testGrids() })
	t.Run("old group", func(t *testing.T) { s.with(t).testOldGroup() })
	t.Run("replicas", func(t *testing.T) { s.with(t).testReplicas() })
	t.Run("rollout", func(t *testing.T) { s.with(t).testRollout() })
	t.Run("units", func(t *testing.T) { s.with(t).testUnits() })
	t.Run("pools", func(t *testing.T) { s.with(t).testPools() })
	t.Run("mistakes", func(t *testing.T) { s.with(t).testMistakes() })
}

func (s *scene) with(t *testing.T) *scene {
	out := *s
	out.T = t
	return &out
}

func (s *scene) testCanary() {
	s.fixture("superedge-canary")
	s.awaitImage("canary-demo-zone-1", "nginx:1.9.1")
	s.awaitImage("canary-demo-zone-2", "nginx:1.7.9")
	s.awaitStatus("superedge.io/v1", "DeploymentGrid", "canary-demo", "2", "updatedUnits")
	// A unit of many nodes is one unit; one that a node joins gets its workload, one that the last node leaves loses it.
	s.node("n4", map[string]string{"zone": "zone-4"})
	s.awaitImage("canary-demo-zone-4", "nginx:1.7.9")
	s.node("n4", map[string]string{"zone": "zone-5"})
	s.awaitImage("canary-demo-zone-4", "")
	s.awaitImage("canary-demo-zone-5", "nginx:1.7.9")
	// However fast labels change, the last one counts.
	for i := range 60 {
		s.node("n4", map[string]string{"zone": fmt.Sprintf("zone-%d", 10+i%7)})
	}
	s.node("n4", map[string]string{"zone": "zone-5"})
	s.awaitStatus("superedge.io/v1", "DeploymentGrid", "canary-demo", "3", "units")
	for i := range 7 {
		s.awaitImage(fmt.Sprintf("canary-demo-zone-%d", 10+i), "")
	}
	s.awaitImage("canary-demo-zone-5", "nginx:1.7.9")
	s.node("n4", nil)
	s.awaitImage("canary-demo-zone-5", "")
	s.patch("superedge.io/v1", "DeploymentGrid", "canary-demo", `{"spec":{"templates":{"zone-1":"stable"}}}`)
	s.awaitImage("canary-demo-zone-1", "nginx:1.7.9")
	plane.Await(s.T, "the unused template to go", func() bool {
		_, left, _ := unstructured.NestedMap(s.object("superedge.io/v1", "DeploymentGrid", "canary-demo").Object, "spec", "templatePool", "next")
		return !left
	})
}

func (s *scene) testGrids() {
	s.fixture("superedge-grids")
	s.awaitImage("deploymentgrid-demo-zone-1", "nginx:1.7.9")
	d := s.deployment("deploymentgrid-demo-zone-1")
	if d.Spec.Template.Spec.NodeSelector["zone"] != "zone-1" || *d.Spec.Replicas != 2 || d.Labels["superedge.io/grid-selector"] != "deploymentgrid-demo" ||
		d.Labels["superedge.io/grid-uniq-key"] != "zone" || !metav1.IsControlledBy(d, s.object("superedge.io/v1", "DeploymentGrid", "deploymentgrid-demo")) {
		s.Errorf("%+v", d)
	}
	s.awaitStatus("superedge.io/v1", "ServiceGrid", "echogrid-demo", "echogrid-demo-svc", "service")
	plane.Await(s.T, "the names of the StatefulSetGrid", func() bool {
		svc, err := s.api.CoreV1().Services("default").Get(s.ctx, "echogrid-demo-svc", metav1.GetOptions{})
		return err == nil && svc.Annotations["grid.kedge.io/statefulset-grids"] == `{"statefulsetgrid-demo":"zone"}` && svc.Annotations["topologyKeys"] == `["zone"]`
	})
	plane.Await(s.T, "the StatefulSets", func() bool {
		list, err := s.api.AppsV1().StatefulSets("default").List(s.ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 2
	})
	// What somebody else changed goes back, what is somebody else's stays.
	s.patch("apps/v1", "Deployment", "deploymentgrid-demo-zone-1", `{"spec":{"template":{"spec":{"nodeSelector":{"zone":"zone-2"}}}}}`)
	plane.Await(s.T, "the edit to be undone", func() bool {
		return s.deployment("deploymentgrid-demo-zone-1").Spec.Template.Spec.NodeSelector["zone"] == "zone-1"
	})
	s.leaveUnit()
	s.awaitStatus("superedge.io/v1", "DeploymentGrid", "deploymentgrid-demo", "2", "states", "zone-2", "unavailableReplicas")
	s.awaitStatus("superedge.io/v1", "DeploymentGrid", "deploymentgrid-demo", "1", "observedGeneration")
}

// leaveUnit takes a node out of a unit that has another: the unit's pods leave the node.
func (s *scene) leaveUnit() {
	s.Helper()
	pods := s.api.CoreV1().Pods("default")
	var name string
	plane.Await(s.T, "a pod of zone-2", func() bool {
		list, err := pods.List(s.ctx, metav1.ListOptions{LabelSelector: "grid.kedge.io/unit=zone-2,superedge.io/grid-selector=deploymentgrid-demo"})
		if err == nil && len(list.Items) > 0 {
			name = list.Items[0].Name
		}
		return name != ""
	})
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n3"}}
	if err := pods.Bind(s.ctx, binding, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.node("n3", map[string]string{"zone": "zone-3"})
	plane.Await(s.T, "the pod to leave the node", func() bool {
		p, err := pods.Get(s.ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil
	})
	s.node("n3", map[string]string{"zone": "zone-2"})
	s.awaitImage("deploymentgrid-demo-zone-3", "")
}

func (s *scene) testOldGroup() {
	fixture, err := os.ReadFile("testdata/tke-deploymentgrid.yaml")
	if err != nil {
		s.Fatal(err)
	}
	// Under the name of a grid of the other group its workloads exist already, and belong to that one.
	s.applyText(string(fixture))
	plane.Await(s.T, "the problem to be told", func() bool {
		c := s.object("tkeedge.io/v1", "DeploymentGrid", "deploymentgrid-demo")
		list, _, _ := unstructured.NestedSlice(c.Object, "status", "conditions")
		return strings.Contains(fmt.Sprint(list), "belongs to")
	})
	for _, kind := range []string{"DeploymentGrid", "ServiceGrid"} {
		resource, _, err := s.client.Resource(kube.Ref{APIVersion: "superedge.io/v1", Kind: kind})
		if err != nil {
			s.Fatal(err)
		}
		if err := resource.Delete(s.ctx, strings.ToLower(kind)+"-demo", metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	// The garbage collector learns of new kinds every 30 s; what it would remove is removed here.
	background := metav1.DeletePropagationBackground
	for _, unit := range []string{"zone-1", "zone-2"} {
		err := s.api.AppsV1().Deployments("default").Delete(s.ctx, "deploymentgrid-demo-"+unit, metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			s.Fatal(err)
		}
	}
	if err := s.api.CoreV1().Services("default").Delete(s.ctx, "servicegrid-demo-svc", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		s.Fatal(err)
	}
	s.patch("tkeedge.io/v1", "DeploymentGrid", "deploymentgrid-demo", `{"metadata":{"annotations":{"grid.kedge.io/paused":"false"}}}`)
	s.fixture("tke-servicegrid")
	s.awaitImage("deploymentgrid-demo-zone-1", "nginx:1.7.9")
	s.awaitStatus("tkeedge.io/v1", "ServiceGrid", "servicegrid-demo", "servicegrid-demo-svc", "service")
}

// small is a grid without replicas; what follows its name is metadata.
func small(name, metadata, image string) string {
	return fmt.Sprintf(`{apiVersion: superedge.io/v1, kind: DeploymentGrid, metadata: {name: %s, namespace: default%s}, spec: {gridUniqKey: zone, template: {
		selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: %[3]s}]}}}}}`, name, metadata, image)
}

func (s *scene) testReplicas() {
	s.applyText(small("hpa", "", "a:1"))
	s.awaitImage("hpa-zone-1", "a:1")
	plane.Await(s.T, "the scale to be set", func() bool {
		scale, err := s.api.AppsV1().Deployments("default").GetScale(s.ctx, "hpa-zone-1", metav1.GetOptions{})
		if err != nil {
			return false
		}
		scale.Spec.Replicas = 5
		_, err = s.api.AppsV1().Deployments("default").UpdateScale(s.ctx, "hpa-zone-1", scale, metav1.UpdateOptions{})
		return err == nil
	})
	// An autoscaler below its minimum acts without metrics.
	s.applyText(`{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: hpa, namespace: default}, spec: {minReplicas: 3, maxReplicas: 4,
		scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: hpa-zone-2}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}`)
	plane.Await(s.T, "the autoscaler", func() bool { return *s.deployment("hpa-zone-2").Spec.Replicas == 3 })
	s.applyText(small("hpa", "", "a:2"))
	s.awaitImage("hpa-zone-1", "a:2")
	s.awaitImage("hpa-zone-2", "a:2")
	if n, m := *s.deployment("hpa-zone-1").Spec.Replicas, *s.deployment("hpa-zone-2").Spec.Replicas; n != 5 || m != 3 {
		s.Errorf("%d replicas that were set by hand, %d by the autoscaler", n, m)
	}
	if sel := s.deployment("hpa-zone-2").Spec.Template.Spec.NodeSelector; sel["zone"] != "zone-2" || sel["disk"] != "ssd" {
		s.Error(sel)
	}
}

func (s *scene) testRollout() {
	// Nobody speaks for these nodes; by now they may count as lost.
	s.ready("n1", true)
	s.ready("n2", true)
	s.ready("n3", true)
	careful := ", annotations: {grid.kedge.io/max-unavailable-units: '1'}"
	s.applyText(small("slow", careful, "a:1"))
	for _, unit := range []string{"zone-1", "zone-2"} {
		s.awaitImage("slow-"+unit, "a:1")
	}
	settle := func(ready string, unit ...string) {
		s.Helper()
		plane.Await(s.T, "units to be ready", func() bool {
			for _, u := range unit {
				s.run(u)
			}
			got, _, _ := unstructured.NestedInt64(s.object("superedge.io/v1", "DeploymentGrid", "slow").Object, "status", "readyUnits")
			return fmt.Sprint(got) == ready
		})
	}
	settle("2", "zone-1", "zone-2")
	s.applyText(small("slow", careful, "a:2"))
	s.awaitImage("slow-zone-1", "a:2")
	s.awaitStatus("superedge.io/v1", "DeploymentGrid", "slow", "waits for unit zone-1", "states", "zone-2", "message")
	if got := s.deployment("slow-zone-2").Spec.Template.Spec.Containers[0].Image; got != "a:1" {
		s.Errorf("zone-2 was updated before zone-1 was ready: %s", got)
	}
	plane.Await(s.T, "the next unit, once the first is ready", func() bool {
		s.run("zone-1")
		return s.deployment("slow-zone-2").Spec.Template.Spec.Containers[0].Image == "a:2"
	})
}

func (s *scene) testUnits() {
	s.node("shop", map[string]string{"store": "beijing", "tier": "old"})
	s.fixture("site")
	want := map[string]string{"tier": "shop-floor", "store-beijing": "nodeunits.superedge.io", "beijing": "nodeunits.superedge.io",
		"stores": "beijing", "stores-old-spelling": "beijing"}
	has := func(want map[string]string) func() bool {
		return func() bool {
			n, err := s.api.CoreV1().Nodes().Get(s.ctx, "shop", metav1.GetOptions{})
			for k, v := range want {
				if err == nil && n.Labels[k] != v {
					return false
				}
			}
			return err == nil
		}
	}
	plane.Await(s.T, "the marks of units", has(want))
	s.awaitStatus("site.superedge.io/v1alpha2", "NodeUnit", "store-beijing", "1/1", "readyRate")
	s.awaitStatus("site.superedge.io/v1alpha1", "NodeUnit", "store-beijing", "1/1", "readyrate")
	s.awaitStatus("site.superedge.io/v1alpha2", "NodeGroup", "stores-old-spelling", "[beijing]", "nodeUnits")
	s.awaitStatus("site.superedge.io/v1alpha1", "NodeGroup", "stores", "1", "unitnumber")
	if keys, _, _ := unstructured.NestedStringSlice(s.object("site.superedge.io/v1alpha1", "NodeGroup", "stores").Object, "spec", "autofindnodekeys"); len(keys) != 1 {
		s.Errorf("v1alpha1 of a v1alpha2 object has keys %v", keys)
	}
	// A group is a key of grids.
	s.applyText(strings.Replace(small("bygroup", "", "a:1"), "gridUniqKey: zone", "gridUniqKey: stores", 1))
	s.awaitImage("bygroup-beijing", "a:1")
	// A node that leaves is released, and has back what it had.
	s.node("shop", map[string]string{"store": "paris"})
	plane.Await(s.T, "the release", has(map[string]string{"tier": "old", "store-beijing": "", "beijing": "", "stores": "paris"}))
	s.awaitImage("bygroup-beijing", "")
	s.awaitImage("bygroup-paris", "a:1")
	s.awaitStatus("site.superedge.io/v1alpha2", "NodeUnit", "store-beijing", "0/0", "readyRate")
	s.awaitStatus("site.superedge.io/v1alpha2", "NodeGroup", "stores", "[paris]", "nodeUnits")
}

func (s *scene) testPools() {
	s.node("edge", map[string]string{"apps.openyurt.io/nodepool": "hangzhou"})
	s.fixture("openyurt")
	s.awaitImage("web-hangzhou", "nginx:1.9.1")
	d := s.deployment("web-hangzhou")
	if *d.Spec.Replicas != 3 || d.Labels["apps.openyurt.io/pool-name"] != "hangzhou" || d.Spec.Template.Spec.NodeSelector["apps.openyurt.io/nodepool"] != "hangzhou" ||
		len(d.Spec.Template.Spec.Tolerations) != 1 {
		s.Errorf("%+v", d.Spec)
	}
	s.awaitStatus("apps.openyurt.io/v1beta1", "YurtAppSet", "web", "1", "totalWorkloads")
	s.awaitStatus("apps.openyurt.io/v1alpha1", "NodePool", "hangzhou", "1", "readyNodeNum")
	n, err := s.api.CoreV1().Nodes().Get(s.ctx, "edge", metav1.GetOptions{})
	if err != nil || n.Labels["region"] != "hangzhou" || !strings.Contains(fmt.Sprint(n.Spec.Taints), "apps.openyurt.io/example") {
		s.Errorf("%v %v", n.Labels, err)
	}
	old := s.object("apps.openyurt.io/v1alpha1", "YurtAppSet", "web")
	pools, _, _ := unstructured.NestedSlice(old.Object, "spec", "topology", "pools")
	if len(pools) != 1 || pools[0].(map[string]any)["replicas"] != int64(3) {
		s.Errorf("v1alpha1: %v", pools)
	}
	s.node("edge", nil)
	s.awaitStatus("apps.openyurt.io/v1beta2", "NodePool", "hangzhou", "0", "readyNodeNum")
	if s.deployment("web-hangzhou") == nil {
		s.Error("a pool without nodes is a pool")
	}
}

func (s *scene) testMistakes() {
	for text, want := range map[string]string{
		strings.Replace(small("bad", "", "a:1"), "selector:", "replcas: 2, selector:", 1):                                                       "spec.template.replcas",
		`{apiVersion: site.superedge.io/v1alpha1, kind: NodeGroup, metadata: {name: bad}, spec: {autofindnodekeys: ["a b"]}}`:                   "spec.autofindnodekeys[0]",
		`{apiVersion: apps.openyurt.io/v1alpha1, kind: YurtAppDaemon, metadata: {name: bad, namespace: default}, spec: {workloadTemplate: {}}}`: "spec.workloadTemplate",
	} {
		if err := s.try(s.objects(text)[0]); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			s.Errorf("%v, want %s", err, want)
		}
	}
	list, err := s.client.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"}).Namespace("default").List(s.ctx, metav1.ListOptions{})
	if err != nil || !strings.Contains(fmt.Sprint(list.Items), "created workloads of 2 units: zone-1, zone-2") {
		s.Errorf("no Event tells of what was made: %v", err)
	}
}
