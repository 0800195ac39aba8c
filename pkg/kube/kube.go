// Package kube reaches the Kubernetes API: client configuration, kinds found by discovery, server-side apply and pruning.
// It is a foundation: server, agent and features may import it.
package kube

import (
	"fmt"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config reads a kubeconfig file for a part of kedge. Certificates that the file refers to are reloaded when they change.
// There is no client-side rate limit: the API server has priority and fairness for that.
func Config(kubeconfig, part string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.QPS = -1
	cfg.UserAgent = "kedge/" + strings.TrimSpace(part)
	cfg.WarningHandler = rest.NoWarnings{}
	return cfg, nil
}
