package server

import (
	"fmt"
	"time"

	"github.com/kedge-io/kedge/pkg/controlplane"
	"github.com/kedge-io/kedge/pkg/metrics"
)

// localAPIs are the APIs that packaged add-ons answer inside this process.
func (s *Server) localAPIs() ([]controlplane.LocalAPI, error) {
	if s.cfg.Disabled("metrics-server") {
		return nil, nil
	}
	p := s.certs.ServerPaths
	m, err := metrics.New(metrics.Config{
		Kubeconfig: p.SupervisorKubeconfig, Dial: s.gate.tunnel.Dial, Period: time.Duration(s.cfg.MetricsPeriod) * time.Second,
		KubeletCA: p.ServerCA.Cert, KubeletCert: p.KubeletClient.Cert, KubeletKey: p.KubeletClient.Key, Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare metrics: %w", err)
	}
	return []controlplane.LocalAPI{{Group: metrics.Group, Version: metrics.Version, Resources: metrics.Resources(), Handler: m}}, nil
}
