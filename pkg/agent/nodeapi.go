package agent

import (
	"github.com/kedge-io/kedge/pkg/autonomy"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// nodeAPI prepares what the node's parts use instead of the server.
func (a *Agent) nodeAPI() (*autonomy.NodeAPI, error) {
	return autonomy.New(autonomy.Config{
		DataDir: a.cfg.DataDir, NodeName: a.cfg.NodeName, NodeIPs: a.cfg.NodeIPs,
		Server: a.cluster.ServerURL, ServerHere: a.cluster.ServerURL != balancerURL, Alone: a.cluster.alone,
		ServiceIPs: a.cluster.ServiceIPs, ClusterDomain: a.cluster.Domain, PodCIDRs: a.cluster.ClusterCIDRs, Log: a.log,
	})
}

// NodeAPI is what the node's parts use instead of the server; it starts before them, and needs nothing of the server to start.
func (a *Agent) NodeAPI() supervisor.Component { return a.api }
