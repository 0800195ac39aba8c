package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

const (
	// annotationProvided is where a kubelet says its own addresses, when others are to complete them.
	annotationProvided = "alpha.kubernetes.io/provided-node-ip"
	// taintUninitialized keeps pods off until somebody has.
	taintUninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
)

// externalAddresses is the component that writes what nodes say about their addresses outside into their status: kubelets know
// their own addresses only, and leave the status to others when told so.
func (s *Server) externalAddresses() (supervisor.Component, error) {
	cfg, err := kube.Config(s.certs.SupervisorKubeconfig, "external-addresses")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return supervisor.Func{ID: "external-addresses", Do: func(ctx context.Context) error {
		changed := make(chan struct{}, 1)
		nodes := peers.WatchLabeled(client.CoreV1().RESTClient(), "nodes", peers.LabelExternal, &corev1.Node{}, changed)
		go nodes.RunWithContext(ctx)
		for {
			wait := time.Hour
			for _, o := range nodes.GetStore().List() {
				if n, ok := o.(*corev1.Node); ok && complete(ctx, client, n) != nil {
					wait = 2 * time.Second
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-time.After(wait):
			}
		}
	}}, nil
}

// complete writes what differs.
func complete(ctx context.Context, client kubernetes.Interface, n *corev1.Node) error {
	want := wantAddresses(n)
	if want == nil {
		return nil
	}
	if !slices.Equal(want, n.Status.Addresses) {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": want}})
		if err != nil {
			return err
		}
		if _, err := client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
	}
	taints := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Key == taintUninitialized })
	if len(taints) == len(n.Spec.Taints) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID}, "spec": map[string]any{"taints": taints}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// wantAddresses are the addresses that a node should have, or nil where its kubelet writes them itself.
func wantAddresses(n *corev1.Node) []corev1.NodeAddress {
	own, outside := parseAddresses(n.Annotations[annotationProvided]), parseAddresses(n.Annotations[peers.AnnotationExternal])
	if len(own) == 0 || len(outside) == 0 {
		return nil
	}
	var out []corev1.NodeAddress
	for _, a := range own {
		out = append(out, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	for _, a := range outside {
		out = append(out, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: a.String()})
	}
	return append(out, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
}

// parseAddresses reads at most two addresses.
func parseAddresses(text string) []netip.Addr {
	var out []netip.Addr
	for part := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || a.Zone() != "" || len(out) == 2 {
			return nil
		}
		out = append(out, a)
	}
	return out
}

// directories say where nodes are: their addresses outside, and the directory of their pod networks.
func (s *Server) directories() ([]supervisor.Component, error) {
	outside, err := s.externalAddresses()
	if err != nil {
		return nil, fmt.Errorf("prepare external addresses: %w", err)
	}
	parts := []supervisor.Component{outside}
	if s.cfg.FlannelBackend == "none" || s.cfg.FlannelBackend == "bridge" {
		return parts, nil
	}
	cfg, err := kube.Config(s.certs.SupervisorKubeconfig, "pod-networks")
	if err != nil {
		return nil, err
	}
	d, err := peers.NewDirectory(peers.DirectoryConfig{Client: cfg, Seen: s.gate.tunnel.From, Log: s.log})
	if err != nil {
		return nil, fmt.Errorf("prepare pod networks: %w", err)
	}
	return append(parts, d), nil
}
