package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kedge-io/kedge/test/plane"
)

// site is a control plane with both parts of storage at work for the node n1.
type site struct {
	*testing.T
	api  kubernetes.Interface
	root string
	stop func() // ends the node part
	node func() // starts it again
}

func newSite(t *testing.T) *site {
	kubeconfig := plane.Start(t, "--disable", "local-storage").Kubeconfig
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, api: kubernetes.NewForConfigOrDie(rc), root: filepath.Join(t.TempDir(), "volumes")}
	c, err := New(Config{Kubeconfig: kubeconfig, Paths: []string{s.root}})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, c.Run)
	s.node = func() {
		n, err := NewNode(NodeConfig{Kubeconfig: kubeconfig, NodeName: "n1", Paths: []string{s.root}})
		if err != nil {
			t.Fatal(err)
		}
		s.stop = runUntilEnd(t, n.Run)
		plane.Await(t, "the node part", func() bool { return n.Ready(t.Context()) == nil })
	}
	s.node()
	s.create()
	return s
}

// runUntilEnd runs a component until the returned function or the end of the test.
func runUntilEnd(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// create makes the node, the class and a namespace with its service account.
func (s *site) create() {
	s.Helper()
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: Provisioner, VolumeBindingMode: &wait}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}
	_, err := s.api.StorageV1().StorageClasses().Create(s.Context(), class, metav1.CreateOptions{})
	_, nodeErr := s.api.CoreV1().Nodes().Create(s.Context(), node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) || nodeErr != nil {
		s.Fatal(err, nodeErr)
	}
}

// claim makes a claim as the scheduler leaves it when it has chosen a node.
func (s *site) claim(name, node string, mode corev1.PersistentVolumeAccessMode) {
	s.Helper()
	class := "local-path"
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{selectedNode: node}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}
	if _, err := s.api.CoreV1().PersistentVolumeClaims("default").Create(s.Context(), pvc, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

// bound waits until the claim has a volume whose directory is there.
func (s *site) bound(name string) *corev1.PersistentVolume {
	s.Helper()
	var v *corev1.PersistentVolume
	plane.Await(s.T, "claim "+name+" to be bound with a directory", func() bool {
		pvc, err := s.api.CoreV1().PersistentVolumeClaims("default").Get(s.Context(), name, metav1.GetOptions{})
		if err != nil || pvc.Status.Phase != corev1.ClaimBound {
			return false
		}
		v, err = s.api.CoreV1().PersistentVolumes().Get(s.Context(), pvc.Spec.VolumeName, metav1.GetOptions{})
		return err == nil && exists(v.Spec.Local.Path)
	})
	return v
}

func (s *site) drop(claim string) {
	s.Helper()
	if err := s.api.CoreV1().PersistentVolumeClaims("default").Delete(s.Context(), claim, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *site) awaitGone(v *corev1.PersistentVolume) {
	s.Helper()
	plane.Await(s.T, "volume "+v.Name+" to be gone", func() bool {
		_, err := s.api.CoreV1().PersistentVolumes().Get(s.Context(), v.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func (s *site) awaitEvent(claim, reason, text string) {
	s.Helper()
	plane.Await(s.T, "event "+reason+" on "+claim, func() bool {
		list, err := s.api.CoreV1().Events("default").List(s.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + claim})
		if err != nil {
			return false
		}
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Message, text) {
				return true
			}
		}
		return false
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func TestVolumesOfRealClaims(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	s := newSite(t)
	s.testNodeThatIsOff()
	s.testRetain()

	s.claim("shared", "n1", corev1.ReadWriteMany)
	s.awaitEvent("shared", "ProvisioningFailed", "use ReadWriteOnce")
	s.claim("lost", "n9", corev1.ReadWriteOnce)
	s.awaitEvent("lost", "ProvisioningFailed", "another node will be selected")

	s.claim("orphan", "n1", corev1.ReadWriteOnce)
	orphan := s.bound("orphan")
	s.stop()
	if err := s.api.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.drop("orphan")
	s.awaitGone(orphan)
	if !exists(orphan.Spec.Local.Path) {
		t.Error("the directory of a deleted node was removed by somebody else")
	}
}

// testNodeThatIsOff deletes a claim whose node is off: the directory goes when the node is back.
func (s *site) testNodeThatIsOff() {
	t := s.T
	s.claim("data", "n1", corev1.ReadWriteOnce)
	v := s.bound("data")
	if err := os.WriteFile(filepath.Join(v.Spec.Local.Path, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.drop("data")
	plane.Await(t, "the volume to be given up", func() bool {
		now, err := s.api.CoreV1().PersistentVolumes().Get(t.Context(), v.Name, metav1.GetOptions{})
		return err == nil && now.DeletionTimestamp != nil
	})
	if !exists(v.Spec.Local.Path) {
		t.Fatal("the directory is gone while its node is off")
	}
	s.node()
	s.awaitGone(v)
	if exists(v.Spec.Local.Path) {
		t.Error("the directory stayed")
	}
}

// testRetain deletes a claim whose volume is to be kept.
func (s *site) testRetain() {
	t := s.T
	s.claim("kept", "n1", corev1.ReadWriteOnce)
	kept := s.bound("kept")
	kept.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	if _, err := s.api.CoreV1().PersistentVolumes().Update(t.Context(), kept, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.drop("kept")
	plane.Await(t, "the volume to be released", func() bool {
		now, err := s.api.CoreV1().PersistentVolumes().Get(t.Context(), kept.Name, metav1.GetOptions{})
		return err == nil && now.Status.Phase == corev1.VolumeReleased && now.DeletionTimestamp == nil
	})
	if err := s.api.CoreV1().PersistentVolumes().Delete(t.Context(), kept.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(kept)
	if !exists(kept.Spec.Local.Path) {
		t.Error("a kept directory was removed")
	}
}
