package grid

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/kedge-io/kedge/manifests"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/test/plane"
)

// scene is a real control plane without nodes, with the controllers of this test's own process.
type scene struct {
	*testing.T
	ctx    context.Context
	api    *kubernetes.Clientset
	client *kube.Client
	use    func(schema.GroupKind) // what the API server's check would call
}

// newScene applies the definitions itself: the packaged grid is off, so that its controllers are not in the way of ours.
func newScene(t *testing.T) *scene {
	t.Helper()
	kubeconfig := plane.Start(t, "--disable", "grid", "--kube-controller-manager-arg", "horizontal-pod-autoscaler-sync-period=1s").Kubeconfig
	cfg, err := kube.Config(kubeconfig, "test")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, ctx: t.Context(), api: kubernetes.NewForConfigOrDie(cfg)}
	if s.client, err = kube.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	data, err := manifests.FS().Open("grid.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(data); err != nil {
		t.Fatal(err)
	}
	s.applyText(text.String())
	g, err := New(Config{Kubeconfig: kubeconfig, Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	s.use = g.Use
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *scene) objects(text string) []*unstructured.Unstructured {
	s.Helper()
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq(text, "\n---\n") {
		data, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			s.Fatal(err)
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(data); err != nil {
			s.Fatal(err)
		}
		out = append(out, obj)
	}
	return out
}

// try applies one object, and waits for its kind.
func (s *scene) try(obj *unstructured.Unstructured) error {
	var err error
	if s.use != nil {
		s.use(obj.GroupVersionKind().GroupKind())
	}
	plane.Await(s.T, "kind "+obj.GetKind(), func() bool {
		_, err = s.client.Apply(s.ctx, obj, kube.ApplyOptions{Manager: "test"})
		if kube.MissingKind(err) {
			s.client.ForgetKinds()
		}
		return !kube.MissingKind(err) && !kube.Unavailable(err)
	})
	return err
}

func (s *scene) applyText(text string) {
	s.Helper()
	for _, obj := range s.objects(text) {
		if err := s.try(obj); err != nil {
			s.Fatalf("%s: %v", obj.GetName(), err)
		}
	}
}

func (s *scene) fixture(name string) {
	s.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		s.Fatal(err)
	}
	s.applyText(string(data))
}

// node makes or relabels a node; one without labels goes away.
func (s *scene) node(name string, labels map[string]string) {
	s.Helper()
	nodes := s.api.CoreV1().Nodes()
	if labels == nil {
		if err := nodes.Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
		return
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := nodes.Create(s.ctx, n, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		data, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
		_, err = nodes.Patch(s.ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
	s.ready(name, true)
}

func (s *scene) ready(name string, is bool) {
	s.Helper()
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	now := metav1.Now()
	data, _ := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastHeartbeatTime: now, LastTransitionTime: now}}}})
	if _, err := s.api.CoreV1().Nodes().Patch(s.ctx, name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status"); err != nil {
		s.Fatal(err)
	}
}

// deployment returns a Deployment, or nil.
func (s *scene) deployment(name string) *appsv1.Deployment {
	d, err := s.api.AppsV1().Deployments("default").Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return d
}

// awaitImage waits until a Deployment's first container has the image; "" until there is none.
func (s *scene) awaitImage(name, image string) {
	s.Helper()
	plane.Await(s.T, name+" of "+image, func() bool {
		d := s.deployment(name)
		if d == nil || image == "" {
			return d == nil == (image == "")
		}
		return d.Spec.Template.Spec.Containers[0].Image == image
	})
}

func (s *scene) object(apiVersion, kind, name string) *unstructured.Unstructured {
	s.Helper()
	resource, _, err := s.client.Resource(kube.Ref{APIVersion: apiVersion, Kind: kind, Name: name})
	if err != nil {
		s.Fatal(err)
	}
	obj, err := resource.Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return obj
}

// awaitStatus waits until a field of an object's status is what it should be, as text.
func (s *scene) awaitStatus(apiVersion, kind, name, want string, path ...string) {
	s.Helper()
	got := ""
	defer func() {
		if s.Failed() {
			s.Logf("%s %s: status %v is %q, want %q", kind, name, path, got, want)
		}
	}()
	plane.Await(s.T, kind+" "+name+" with "+want, func() bool {
		obj := s.object(apiVersion, kind, name)
		if obj == nil {
			return false
		}
		v, _, _ := unstructured.NestedFieldNoCopy(obj.Object, append([]string{"status"}, path...)...)
		got = fmt.Sprint(v)
		return got == want
	})
}

// patch merges JSON into an object.
func (s *scene) patch(apiVersion, kind, name, data string) {
	s.Helper()
	resource, _, err := s.client.Resource(kube.Ref{APIVersion: apiVersion, Kind: kind, Name: name})
	if err != nil {
		s.Fatal(err)
	}
	if _, err := resource.Patch(s.ctx, name, types.MergePatchType, []byte(data), metav1.PatchOptions{}); err != nil {
		s.Fatal(err)
	}
}

// run marks all pods of a unit's workload as running, or failing, as a kubelet would.
func (s *scene) run(unit string) {
	s.Helper()
	pods, err := s.api.CoreV1().Pods("default").List(s.ctx, metav1.ListOptions{LabelSelector: "grid.kedge.io/unit=" + unit})
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			_ = s.api.CoreV1().Pods("default").Delete(s.ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
			continue
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Minute))}}
		_, _ = s.api.CoreV1().Pods("default").UpdateStatus(s.ctx, &p, metav1.UpdateOptions{}) // a conflict is tried again
	}
}
