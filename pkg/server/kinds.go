package server

import (
	"fmt"
	"slices"

	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/twin"
)

// kinds are the custom resources that this process converts and checks, feature by feature. Kinds of a feature that is switched off
// stay known: its objects must be readable to be removed.
func (s *Server) kinds() (*conversion.Registry, error) {
	devices := slices.Concat(twin.Kinds(s.certs.SupervisorKubeconfig), rules.Kinds(s.certs.SupervisorKubeconfig))
	var err error
	s.grid, err = grid.New(grid.Config{Kubeconfig: s.certs.SupervisorKubeconfig, Alone: s.single, Off: s.cfg.Disabled("grid"), Log: s.log})
	if err != nil {
		return nil, fmt.Errorf("prepare grid: %w", err)
	}
	return conversion.NewRegistry(grid.Kinds(s.grid.Use), devices)
}
