package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// orphanCheck is how often volumes that wait for their node are compared with the nodes that exist.
const orphanCheck = time.Minute

// Config says what the controller works with.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file of the server.
	Kubeconfig string
	// Paths are the directories that may hold volumes, on every node. The first is used unless a StorageClass names
	// another with its parameter path.
	Paths []string
	// Log receives what an operator should know.
	Log *slog.Logger
}

// Controller is the component "storage": it makes the volumes of new claims and deletes those of deleted claims.
// Several of them may run at once: names are derived from the claims, so the second result is the first one.
type Controller struct {
	cfg     Config
	client  kubernetes.Interface
	claims  *keeper[*corev1.PersistentVolumeClaim]
	volumes *keeper[*corev1.PersistentVolume]
	events  record.EventRecorder
}

// New checks cfg, connects nothing and starts nothing.
func New(cfg Config) (*Controller, error) {
	cfg.Log = quietLog(cfg.Log)
	if err := checkPaths(cfg.Paths); err != nil {
		return nil, err
	}
	client, err := connect(cfg.Kubeconfig, "kedge-storage")
	if err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, client: client}
	rest := client.CoreV1().RESTClient()
	c.claims = newKeeper(rest, "persistentvolumeclaims", "", &corev1.PersistentVolumeClaim{}, c.serveClaim)
	c.volumes = newKeeper(rest, "persistentvolumes", nodeLabel, &corev1.PersistentVolume{}, c.serveVolume)
	return c, nil
}

// Name returns "storage".
func (c *Controller) Name() string { return "storage" }

// Run works until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	recorder, end := newRecorder(c.client, "kedge-storage", "")
	defer end()
	c.events = recorder
	var wg sync.WaitGroup
	wg.Go(func() { c.claims.run(ctx, c.cfg.Log) })
	wg.Go(func() { c.volumes.run(ctx, c.cfg.Log) })
	wg.Wait()
	return nil
}

// Ready says whether the claims and volumes of the cluster are known.
func (c *Controller) Ready(context.Context) error {
	if !c.claims.synced() || !c.volumes.synced() {
		return errors.New("claims and volumes are not read yet")
	}
	return nil
}

// serveClaim makes the volume of a claim that has a node.
func (c *Controller) serveClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (time.Duration, error) {
	if !wanted(claim) {
		return 0, nil
	}
	class, err := c.client.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("get storage class: %w", err)
	}
	if err := refuse(claim, class, c.cfg.Paths); err != nil {
		c.events.Event(claim, corev1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return 0, nil // only a change of the claim can help
	}
	node := claim.Annotations[selectedNode]
	if node == "" {
		c.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed",
			"no node is selected: StorageClass %s needs volumeBindingMode WaitForFirstConsumer", class.Name)
		return 0, nil
	}
	n, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, c.deselect(ctx, claim)
	}
	if err != nil {
		return 0, fmt.Errorf("get node: %w", err)
	}
	hostname := n.Labels[corev1.LabelHostname]
	if hostname == "" {
		return 0, fmt.Errorf("node %s has no label %s", node, corev1.LabelHostname)
	}
	root, err := volumeRoot(class, c.cfg.Paths)
	if err != nil {
		return 0, err
	}
	volume := newVolume(claim, class, root, node, hostname)
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return 0, fmt.Errorf("create volume: %w", err)
	}
	if err == nil {
		c.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "made volume %s on node %s", volume.Name, node)
	}
	return 0, nil
}

// deselect gives a claim whose node is gone back to the scheduler.
func (c *Controller) deselect(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	c.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed",
		"node %s does not exist: another node will be selected", claim.Annotations[selectedNode])
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:null}}}`, claim.UID, selectedNode)
	_, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).
		Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove node from claim: %w", err)
	}
	return nil
}

// serveVolume deletes a volume whose claim is gone, and lets go one that waits for a node that does not exist any more.
func (c *Controller) serveVolume(ctx context.Context, v *corev1.PersistentVolume) (time.Duration, error) {
	if mayDelete(v) {
		only := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))}
		err := c.client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, only)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete volume: %w", err)
		}
		return 0, nil
	}
	if !ours(v) || v.DeletionTimestamp == nil || !slices.Contains(v.Finalizers, finalizer) || v.Status.Phase == corev1.VolumeBound {
		return 0, nil
	}
	node := v.Annotations[nodeAnnotation]
	_, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return orphanCheck, err
	}
	c.cfg.Log.Warn("volume is let go without its directory, because its node was deleted", "volume", v.Name, "node", node)
	return 0, dropFinalizer(ctx, c.client, v)
}

// dropFinalizer lets a volume go. A volume that has changed since it was read is left for the next look at it.
func dropFinalizer(ctx context.Context, client kubernetes.Interface, v *corev1.PersistentVolume) error {
	keep := slices.DeleteFunc(slices.Clone(v.Finalizers), func(f string) bool { return f == finalizer })
	if len(keep) == len(v.Finalizers) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": v.UID, "resourceVersion": v.ResourceVersion, "finalizers": keep,
	}})
	if err != nil {
		return fmt.Errorf("write finalizer patch: %w", err)
	}
	_, err = client.CoreV1().PersistentVolumes().Patch(ctx, v.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("let volume go: %w", err)
	}
	return nil
}
