package server

import (
	"fmt"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/peers"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

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
