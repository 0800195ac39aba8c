package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// externalAddress is the component that tells the cluster under which addresses this node is known outside, or nil.
func (a *Agent) externalAddress() (supervisor.Component, error) {
	if len(a.cfg.NodeExternalIPs) == 0 {
		return nil, nil
	}
	cfg, err := kube.Config(a.certs.KubeletKubeconfig, "external-address")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"labels":      map[string]string{peers.LabelExternal: "true"},
		"annotations": map[string]string{peers.AnnotationExternal: joinAddresses(a.cfg.NodeExternalIPs)},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode external address: %w", err)
	}
	return supervisor.Func{ID: "external-address", Do: func(ctx context.Context) error {
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
			if _, err := client.CoreV1().Nodes().Patch(ctx, a.cfg.NodeName, types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
				<-ctx.Done()
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	}}, nil
}

func joinAddresses(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}
