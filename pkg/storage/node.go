package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/kedge-io/kedge/pkg/kube"
)

// NodeConfig says for which node and where directories are made.
type NodeConfig struct {
	// Kubeconfig is the path of the node's kubeconfig file. Its user reads PersistentVolumes and patches their finalizers.
	Kubeconfig string
	// NodeName is the name of this node.
	NodeName string
	// Hostname is the value of this node's label kubernetes.io/hostname; empty means NodeName.
	Hostname string
	// Paths are the directories that may hold volumes, the same as in Config. The first is made when it is missing; the
	// others are usually mount points, and without them no volume is made there.
	Paths []string
	// Log receives what an operator should know.
	Log *slog.Logger
}

// Node is the component "storage-node": it makes and removes the directories of one node's volumes.
type Node struct {
	cfg     NodeConfig
	client  kubernetes.Interface
	volumes *keeper[*corev1.PersistentVolume]
	events  record.EventRecorder
}

// NewNode checks cfg, connects nothing and starts nothing.
func NewNode(cfg NodeConfig) (*Node, error) {
	cfg.Log = quietLog(cfg.Log)
	if cfg.NodeName == "" {
		return nil, errors.New("storage: NodeName is empty: give the name of this node")
	}
	if cfg.Hostname == "" {
		cfg.Hostname = cfg.NodeName
	}
	if err := checkPaths(cfg.Paths); err != nil {
		return nil, err
	}
	client, err := connect(cfg.Kubeconfig, "kedge-storage-node")
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, client: client}
	mine := nodeLabel + "=" + nodeLabelValue(cfg.NodeName)
	n.volumes = newKeeper(client.CoreV1().RESTClient(), "persistentvolumes", mine, &corev1.PersistentVolume{}, n.serveVolume)
	return n, nil
}

// Name returns "storage-node".
func (n *Node) Name() string { return "storage-node" }

// Run works until ctx is done. Without a reachable API it waits for one and changes nothing.
func (n *Node) Run(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.Paths[0], rootMode); err != nil {
		return fmt.Errorf("make storage path: %w", err)
	}
	recorder, end := newRecorder(n.client, "kedge-storage-node", n.cfg.NodeName)
	defer end()
	n.events = recorder
	if kube.AwaitAccess(ctx, n.ask) {
		n.volumes.run(ctx, n.cfg.Log)
	}
	return nil
}

// ask is the first question to the API.
func (n *Node) ask(ctx context.Context) error {
	_, err := n.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: nodeLabel + "=" + nodeLabelValue(n.cfg.NodeName), Limit: 1})
	return err
}

// Ready says whether volumes can be made on this node; it does not ask the API.
func (n *Node) Ready(context.Context) error {
	info, err := os.Stat(n.cfg.Paths[0])
	if err != nil {
		return fmt.Errorf("look at storage path: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("storage path %s is not a directory", n.cfg.Paths[0])
	}
	return nil
}

// serveVolume does what decide says and reports a failure on the claim.
func (n *Node) serveVolume(ctx context.Context, v *corev1.PersistentVolume) (time.Duration, error) {
	todo := decide(v, n.cfg.Hostname)
	if todo == actionNone {
		return 0, nil
	}
	err := n.do(ctx, v, todo)
	if err != nil && ctx.Err() == nil {
		if v.Spec.ClaimRef != nil {
			n.events.Event(v.Spec.ClaimRef, corev1.EventTypeWarning, "LocalVolumeFailed", err.Error())
		}
		n.events.Event(v, corev1.EventTypeWarning, "LocalVolumeFailed", err.Error())
	}
	return 0, err
}

func (n *Node) do(ctx context.Context, v *corev1.PersistentVolume, todo action) error {
	root, name, err := locate(v, n.cfg.Paths)
	if err != nil {
		return err
	}
	switch todo {
	case actionMake:
		return makeDirectory(root, name)
	case actionRemove:
		mounts, err := readMounts()
		if err != nil {
			return err
		}
		if err := removeDirectory(root, name, mounts); err != nil {
			return err
		}
	}
	return dropFinalizer(ctx, n.client, v)
}
