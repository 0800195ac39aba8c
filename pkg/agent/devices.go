package agent

import (
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/twin"
)

// devices keeps the twins of the devices that hang on this node.
func (a *Agent) devices() (supervisor.Component, error) {
	if a.cluster.NoDevices {
		return nil, nil
	}
	return twin.NewNode(twin.NodeConfig{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName, Dir: filepath.Join(a.cfg.DataDir, "agent", "devices"),
		Cert: a.certs.ServingKubelet.Cert, Key: a.certs.ServingKubelet.Key, Log: a.log,
	})
}
