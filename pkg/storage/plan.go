package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxName is the longest file name that Linux file systems take, in bytes.
const maxName = 255

// wanted says whether a claim is ours to serve now: the volume controller has given it to our provisioner and it has
// no volume yet.
func wanted(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[claimProvisioner] == Provisioner && claim.Spec.VolumeName == "" &&
		claim.DeletionTimestamp == nil && claim.Spec.StorageClassName != nil
}

// refuse says why no volume can be made for the claim and what to change, or nil.
func refuse(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, paths []string) error {
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return fmt.Errorf("access mode %s is not possible with a directory on one node: use ReadWriteOnce or ReadWriteOncePod", mode)
		}
	}
	if mode := claim.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return fmt.Errorf("volumeMode %s is not possible with a directory: use volumeMode Filesystem", *mode)
	}
	if claim.Spec.Selector != nil {
		return errors.New("a selector cannot be used with new volumes: remove spec.selector or set spec.volumeName")
	}
	if claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil {
		return errors.New("local-path cannot copy from a data source: remove spec.dataSource and spec.dataSourceRef")
	}
	_, err := volumeRoot(class, paths)
	return err
}

// volumeRoot returns the directory in which volumes of the class are made: paths[0] unless the class names another.
func volumeRoot(class *storagev1.StorageClass, paths []string) (string, error) {
	root := paths[0]
	for name, value := range class.Parameters {
		if name != "path" {
			return "", fmt.Errorf("StorageClass %s has the unknown parameter %q: the only one is path", class.Name, name)
		}
		if !slices.Contains(paths, value) {
			return "", fmt.Errorf("StorageClass %s wants the path %q, which kedge does not allow: use one of %s",
				class.Name, value, strings.Join(paths, ", "))
		}
		root = value
	}
	return root, nil
}

// volumeName is the same for every attempt to serve a claim, so a repeated attempt finds its first result.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// dirName is the volume's directory below its root. Names of objects hold no "_", so it cannot be mistaken for another.
func dirName(volume, namespace, claim string) string {
	name := volume + "_" + namespace + "_" + claim
	if len(name) > maxName {
		name = name[:maxName]
	}
	return name
}

// nodeLabelValue fits the name of a node into a label: itself, or a hash when it is too long for one.
func nodeLabelValue(node string) string {
	if len(validation.IsValidLabelValue(node)) == 0 {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return "sha256-" + hex.EncodeToString(sum[:16])
}

// newVolume returns the volume for a claim that refuse accepts, on a node whose hostname label is hostname.
func newVolume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, root, node, hostname string) *corev1.PersistentVolume {
	name := volumeName(claim)
	filesystem := corev1.PersistentVolumeFilesystem
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{nodeLabel: nodeLabelValue(node)},
			Annotations: map[string]string{provisionedBy: Provisioner, nodeAnnotation: node},
			Finalizers:  []string{finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &filesystem,
			StorageClassName:              class.Name,
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: reclaim,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: filepath.Join(root, dirName(name, claim.Namespace, claim.Name))},
			},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: onHost(hostname)},
		},
	}
}

func onHost(hostname string) *corev1.NodeSelector {
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname},
		}},
	}}}
}

// ours says whether a volume was made by this package.
func ours(v *corev1.PersistentVolume) bool {
	return v.Annotations[provisionedBy] == Provisioner && v.Spec.Local != nil
}

// mayDelete says whether the controller should delete a volume object: its claim is gone and its data is not kept.
func mayDelete(v *corev1.PersistentVolume) bool {
	return ours(v) && v.DeletionTimestamp == nil && v.Status.Phase == corev1.VolumeReleased &&
		v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// action is what a node has to do for one volume.
type action int

const (
	actionNone    action = iota
	actionMake           // make the directory
	actionRemove         // remove the directory, then let the volume go
	actionRelease        // let the volume go and keep the directory
)

// decide says what the node with the hostname label hostname has to do for a volume.
func decide(v *corev1.PersistentVolume, hostname string) action {
	switch {
	case !ours(v) || !onlyOn(v, hostname):
		return actionNone
	case v.DeletionTimestamp == nil:
		if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
			return actionNone // what the claim left is kept as it is
		}
		return actionMake
	case !slices.Contains(v.Finalizers, finalizer) || v.Status.Phase == corev1.VolumeBound:
		return actionNone
	case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return actionRemove
	default:
		return actionRelease
	}
}

// onlyOn says whether the volume can be used on the host and nowhere else. Node affinity cannot be changed after a
// volume was made, so this is what a node trusts, not the label.
func onlyOn(v *corev1.PersistentVolume, hostname string) bool {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil || len(v.Spec.NodeAffinity.Required.NodeSelectorTerms) != 1 {
		return false
	}
	for _, e := range v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions {
		if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && slices.Equal(e.Values, []string{hostname}) {
			return true
		}
	}
	return false
}

// locate returns the storage path and the name of the directory of a volume. It fails for every volume whose path is
// not one that this package would have chosen for a volume of that name. The claim does not count: an operator may
// give a kept volume to another one.
func locate(v *corev1.PersistentVolume, paths []string) (root, name string, err error) {
	root, name = filepath.Dir(v.Spec.Local.Path), filepath.Base(v.Spec.Local.Path)
	clean := filepath.Join(root, name) == v.Spec.Local.Path
	if clean && slices.Contains(paths, root) && strings.HasPrefix(name, v.Name+"_") && len(name) <= maxName {
		return root, name, nil
	}
	return "", "", fmt.Errorf("path %q is not a volume directory of this node: expected %s_… below %s",
		v.Spec.Local.Path, v.Name, strings.Join(paths, " or "))
}
