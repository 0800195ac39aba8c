package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
)

// Pauses between attempts to reach the API.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 10 * time.Second
	together   = 200 * time.Millisecond // changes of peers that come together are taken together
)

// announce keeps what the cluster says about this node and what the node says about itself in line, once for each change.
func (p *Pods) announce(ctx context.Context, client kubernetes.Interface) error {
	if known := p.overlay.PodCIDRs(); len(known) > 0 {
		if err := p.writeConflist(known); err != nil {
			return err
		}
		p.ready.Store(true)
	}
	for ctx.Err() == nil {
		node, err := p.awaitNode(ctx, client)
		if err != nil || ctx.Err() != nil {
			return ignoreStop(ctx, err)
		}
		cidrs, err := p.configure(node)
		if err != nil {
			return err
		}
		if err := p.overlay.SetPodCIDRs(cidrs); err != nil {
			return err
		}
		own, ok, changed := p.overlay.Own()
		if ok && !announced(node, own) && !p.publish(ctx, client, own) {
			continue // it said why, and waited
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// configure makes CNI use the addresses of a node.
func (p *Pods) configure(node *corev1.Node) ([]netip.Prefix, error) {
	cidrs, err := parsePrefixes(node.Spec.PodCIDRs)
	if err != nil {
		return nil, err
	}
	if err := p.writeConflist(cidrs); err != nil {
		return nil, err
	}
	p.ready.Store(true)
	return cidrs, nil
}

// announced reports whether a Node says what own wants it to say.
func announced(node *corev1.Node, own peers.Peer) bool {
	for k, v := range own.Annotations() {
		if node.Annotations[k] != v {
			return false
		}
	}
	return true
}

// publish writes own on this Node, and reports whether that worked; otherwise it has waited a little.
func (p *Pods) publish(ctx context.Context, client kubernetes.Interface, own peers.Peer) bool {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": own.Annotations()}})
	if err == nil {
		_, err = client.CoreV1().Nodes().Patch(ctx, own.Node, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err == nil {
		return true
	}
	p.log.Debug("announce pod network", "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(lastPause):
	}
	return false
}

// follow gives the overlay the other nodes, as the directory of the cluster has them.
func (p *Pods) follow(ctx context.Context, api rest.Interface) {
	readable := func(ctx context.Context) error {
		return api.Get().Namespace(peers.Namespace).Resource("configmaps").Param("limit", "1").Do(ctx).Error()
	}
	if !kube.AwaitAccess(ctx, readable) {
		return
	}
	changed := make(chan struct{}, 1)
	entries := peers.Watch(api, "configmaps", peers.Namespace, &corev1.ConfigMap{}, changed)
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() {
		defer close(ended)
		entries.RunWithContext(ctx)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(together):
		}
		if !entries.HasSynced() {
			select { // the rest of the first list is on its way
			case changed <- struct{}{}:
			default:
			}
			continue
		}
		var all []peers.Peer
		for _, o := range entries.GetStore().List() {
			if m, ok := o.(*corev1.ConfigMap); ok {
				if peer, ok := peers.FromConfigMap(m); ok {
					all = append(all, peer)
				}
			}
		}
		if err := p.overlay.SetPeers(all); err != nil {
			p.log.Warn("other nodes are not remembered", "error", err)
		}
	}
}

// awaitNode watches this node until the controller manager has given it addresses for pods.
func (p *Pods) awaitNode(ctx context.Context, client kubernetes.Interface) (*corev1.Node, error) {
	self := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", p.cfg.NodeName).String()}
	for pause := firstPause; ; pause = min(2*pause, lastPause/2) {
		if node := p.watchNode(ctx, client, self); node != nil {
			return node, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// watchNode is one watch; it returns nothing when the watch ends or cannot be had.
func (p *Pods) watchNode(ctx context.Context, client kubernetes.Interface, self metav1.ListOptions) *corev1.Node {
	w, err := client.CoreV1().Nodes().Watch(ctx, self)
	if err != nil {
		p.log.Debug("watch node", "error", err)
		return nil
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if node, ok := event.Object.(*corev1.Node); ok && len(node.Spec.PodCIDRs) > 0 {
			return node
		}
	}
	return nil
}

func parsePrefixes(in []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(in))
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("node's pod addresses: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}
