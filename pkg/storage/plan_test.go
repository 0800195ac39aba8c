package storage

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kedge-io/kedge/test/golden"
)

var paths = []string{"/var/lib/kedge/storage", "/mnt/ssd"}

func claim() *corev1.PersistentVolumeClaim {
	class := "local-path"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "data", UID: "0123-abc",
			Annotations: map[string]string{claimProvisioner: Provisioner, selectedNode: "n1"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

func class(parameters map[string]string) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: Provisioner, Parameters: parameters,
	}
}

func volume(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := newVolume(claim(), class(nil), paths[0], "n1", "host-1")
	if change != nil {
		change(v)
	}
	return v
}

func TestNewVolume(t *testing.T) {
	got, err := yaml.Marshal(volume(nil))
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "volume.yaml", string(got))
}

func TestNewVolumeFollowsItsClass(t *testing.T) {
	c := class(map[string]string{"path": "/mnt/ssd"})
	retain := corev1.PersistentVolumeReclaimRetain
	c.ReclaimPolicy, c.MountOptions = &retain, []string{"noatime"}
	root, err := volumeRoot(c, paths)
	if err != nil {
		t.Fatal(err)
	}
	v := newVolume(claim(), c, root, "n1", "n1")
	if v.Spec.PersistentVolumeReclaimPolicy != retain || v.Spec.Local.Path != "/mnt/ssd/pvc-0123-abc_default_data" ||
		len(v.Spec.MountOptions) != 1 {
		t.Errorf("got %+v", v.Spec)
	}
}

func TestWanted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   bool
	}{
		"ours":           {func(*corev1.PersistentVolumeClaim) {}, true},
		"other":          {func(c *corev1.PersistentVolumeClaim) { c.Annotations[claimProvisioner] = "x" }, false},
		"no provisioner": {func(c *corev1.PersistentVolumeClaim) { c.Annotations = nil }, false},
		"has a volume":   {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }, false},
		"going":          {func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }, false},
	} {
		pvc := claim()
		c.change(pvc)
		if got := wanted(pvc); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRefuse(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	for _, c := range []struct {
		name       string
		change     func(*corev1.PersistentVolumeClaim)
		parameters map[string]string
		want       string
	}{
		{"good", nil, nil, ""},
		{"one pod", func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = corev1.ReadWriteOncePod }, nil, ""},
		{"allowed path", nil, map[string]string{"path": "/mnt/ssd"}, ""},
		{"shared", func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = corev1.ReadWriteMany }, nil, "use ReadWriteOnce"},
		{"read only", func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = corev1.ReadOnlyMany }, nil, "use ReadWriteOnce"},
		{"block", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block }, nil, "use volumeMode Filesystem"},
		{"selector", func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }, nil, "remove spec.selector"},
		{"clone", func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = &corev1.TypedLocalObjectReference{} }, nil, "remove spec.dataSource"},
		{"other path", nil, map[string]string{"path": "/etc"}, "use one of /var/lib/kedge/storage, /mnt/ssd"},
		{"path with dots", nil, map[string]string{"path": "/mnt/ssd/../../etc"}, "does not allow"},
		{"unknown parameter", nil, map[string]string{"nodePath": "/mnt/ssd"}, `unknown parameter "nodePath"`},
	} {
		pvc := claim()
		if c.change != nil {
			c.change(pvc)
		}
		err := refuse(pvc, class(c.parameters), paths)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDecide(t *testing.T) {
	phase := func(p corev1.PersistentVolumePhase, going bool) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) {
			v.Status.Phase = p
			if going {
				now := metav1.NewTime(time.Unix(1, 0))
				v.DeletionTimestamp = &now
			}
		}
	}
	both := func(fs ...func(*corev1.PersistentVolume)) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) {
			for _, f := range fs {
				f(v)
			}
		}
	}
	retain := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	for _, c := range []struct {
		name   string
		host   string
		change func(*corev1.PersistentVolume)
		want   action
	}{
		{"new", "host-1", nil, actionMake},
		{"bound", "host-1", phase(corev1.VolumeBound, false), actionMake},
		{"released, not deleted yet", "host-1", phase(corev1.VolumeReleased, false), actionNone},
		{"deleted while bound", "host-1", phase(corev1.VolumeBound, true), actionNone},
		{"deleted", "host-1", phase(corev1.VolumeReleased, true), actionRemove},
		{"deleted before it was bound", "host-1", phase(corev1.VolumeAvailable, true), actionRemove},
		{"deleted and kept", "host-1", both(phase(corev1.VolumeReleased, true), retain), actionRelease},
		{"already let go", "host-1", both(phase(corev1.VolumeReleased, true), func(v *corev1.PersistentVolume) { v.Finalizers = nil }), actionNone},
		{"other node", "host-2", phase(corev1.VolumeReleased, true), actionNone},
		{"no affinity", "host-1", func(v *corev1.PersistentVolume) { v.Spec.NodeAffinity = nil }, actionNone},
		{"two hosts", "host-1", func(v *corev1.PersistentVolume) {
			e := &v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
			e.Values = append(e.Values, "host-2")
		}, actionNone},
		{"two terms", "host-1", func(v *corev1.PersistentVolume) {
			r := v.Spec.NodeAffinity.Required
			r.NodeSelectorTerms = append(r.NodeSelectorTerms, r.NodeSelectorTerms[0])
		}, actionNone},
		{"not ours", "host-1", func(v *corev1.PersistentVolume) { v.Annotations = nil }, actionNone},
		{"host path", "host-1", func(v *corev1.PersistentVolume) { v.Spec.Local = nil }, actionNone},
	} {
		if got := decide(volume(c.change), c.host); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestMayDelete(t *testing.T) {
	released := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeReleased }
	if !mayDelete(volume(released)) {
		t.Error("a released volume stays")
	}
	for name, change := range map[string]func(*corev1.PersistentVolume){
		"bound":    func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound },
		"kept":     func(v *corev1.PersistentVolume) { released(v); v.Spec.PersistentVolumeReclaimPolicy = "Retain" },
		"going":    func(v *corev1.PersistentVolume) { released(v); v.DeletionTimestamp = &metav1.Time{} },
		"not ours": func(v *corev1.PersistentVolume) { released(v); v.Annotations = nil },
	} {
		if mayDelete(volume(change)) {
			t.Errorf("%s: deleted", name)
		}
	}
}

func TestLocate(t *testing.T) {
	root, name, err := locate(volume(nil), paths)
	if err != nil || root != paths[0] || name != "pvc-0123-abc_default_data" {
		t.Errorf("%q %q %v", root, name, err)
	}
	other := volume(func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil })
	if _, _, err := locate(other, paths); err != nil {
		t.Errorf("a kept volume without a claim: %v", err)
	}
	for _, path := range []string{
		"/etc/pvc-0123-abc_default_data",
		"/var/lib/kedge/storage",
		"/var/lib/kedge/storage/pvc-other_default_data",
		"/var/lib/kedge/storage/pvc-0123-abc",
		"/var/lib/kedge/storage/sub/pvc-0123-abc_default_data",
		"/var/lib/kedge/storage/../storage/pvc-0123-abc_x",
		"/var/lib/kedge/storage/pvc-0123-abc_/..",
		"/var/lib/kedge/storage/pvc-0123-abc_/",
		"pvc-0123-abc_x",
		"",
	} {
		v := volume(func(v *corev1.PersistentVolume) { v.Spec.Local.Path = path })
		if _, _, err := locate(v, paths); err == nil {
			t.Errorf("%q was accepted", path)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 253)
	if got := dirName("pvc-1", "ns", long); len(got) != maxName || !strings.HasPrefix(got, "pvc-1_ns_x") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := nodeLabelValue("edge-1.example"); got != "edge-1.example" {
		t.Error(got)
	}
	if a, b := nodeLabelValue(long), nodeLabelValue(long[1:]); a == b || len(a) > 63 {
		t.Errorf("%q %q", a, b)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Paths is empty":           {Kubeconfig: "x"},
		`"storage"`:                {Kubeconfig: "x", Paths: []string{"storage"}},
		`"/"`:                      {Kubeconfig: "x", Paths: []string{"/"}},
		`"/a/../b"`:                {Kubeconfig: "x", Paths: []string{"/a/../b"}},
		"Kubeconfig is empty":      {Paths: paths},
		"load storage kubeconfig:": {Kubeconfig: "/nowhere/x", Paths: paths},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", cfg, err, want)
		}
	}
	if _, err := NewNode(NodeConfig{Paths: paths, Kubeconfig: "x"}); err == nil || !strings.Contains(err.Error(), "NodeName") {
		t.Errorf("error %v", err)
	}
}
