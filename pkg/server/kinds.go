package server

import "github.com/kedge-io/kedge/pkg/conversion"

// kinds are the custom resources that this process converts and checks, feature by feature.
func (s *Server) kinds() (*conversion.Registry, error) {
	return conversion.NewRegistry()
}
