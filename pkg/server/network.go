package server

import (
	"fmt"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// connections are the parts that nodes are connected with: the tunnel, what it says about their being there, and the directory of
// their pod networks.
func (s *Server) connections() ([]supervisor.Component, error) {
	beats, err := s.gate.beats.component(s.certs.SupervisorKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("prepare heartbeats: %w", err)
	}
	outside, err := s.externalAddresses()
	if err != nil {
		return nil, fmt.Errorf("prepare external addresses: %w", err)
	}
	parts := []supervisor.Component{s.gate.tunnel, beats, outside}
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
