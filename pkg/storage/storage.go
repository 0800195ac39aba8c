// Package storage provides the StorageClass local-path: volumes that are directories on the node where the first pod
// of a claim is placed, without a provisioner pod and without jobs. The server mode may import it for Controller, the
// agent mode for Node; it imports no other feature. docs/adr/004-local-storage.md says why it is cut in two.
//
// The controller makes and deletes PersistentVolume objects. The node part makes and removes directories, only for
// volumes whose node affinity names its own node and only inside its storage paths. A directory is removed on positive
// evidence alone: a volume that is being deleted, with reclaim policy Delete, that no claim uses. Nothing is ever
// removed because an object is absent.
package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
)

// Provisioner is the name that a StorageClass uses to get volumes from this package.
const Provisioner = "kedge.io/local-path"

const (
	// finalizer keeps a volume until its node has removed the directory.
	finalizer = "kedge.io/local-path"
	// nodeLabel selects the volumes of one node, so that a node watches its own only.
	nodeLabel = "kedge.io/storage-node"
	// nodeAnnotation is the full name of the node, for names that do not fit into a label.
	nodeAnnotation = "kedge.io/storage-node"
	// provisionedBy, selectedNode and claimProvisioner are annotations of the Kubernetes volume controllers.
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
	selectedNode     = "volume.kubernetes.io/selected-node"
	claimProvisioner = "volume.kubernetes.io/storage-provisioner"
)

// connect makes a client that talks protobuf and is named in the server's audit log.
func connect(kubeconfig, agent string) (kubernetes.Interface, error) {
	if kubeconfig == "" {
		return nil, errors.New("storage: Kubeconfig is empty: give the path of a kubeconfig file")
	}
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load storage kubeconfig: %w", err)
	}
	rc = rest.AddUserAgent(rc, agent)
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make storage client: %w", err)
	}
	return client, nil
}

// checkPaths refuses storage paths that are not absolute and clean.
func checkPaths(paths []string) error {
	if len(paths) == 0 {
		return errors.New("storage: Paths is empty: give at least the default storage path")
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return fmt.Errorf("storage: path %q cannot hold volumes: give an absolute path without . and .., and not /", p)
		}
	}
	return nil
}

// slim drops what no decision reads before an object is kept in memory.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// newRecorder returns a recorder of Events and the function that ends it.
func newRecorder(client kubernetes.Interface, component, host string) (record.EventRecorder, func()) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	source := corev1.EventSource{Component: component, Host: host}
	return broadcaster.NewRecorder(scheme.Scheme, source), broadcaster.Shutdown
}

// quietLog returns log, or one that keeps nothing.
func quietLog(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
