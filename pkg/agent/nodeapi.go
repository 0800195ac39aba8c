package agent

import (
	"context"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy"
	"github.com/kedge-io/kedge/pkg/grid"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// nodeAPI prepares what the node's parts use instead of the server.
func (a *Agent) nodeAPI() (*autonomy.NodeAPI, error) {
	return autonomy.New(autonomy.Config{
		DataDir: a.cfg.DataDir, NodeName: a.cfg.NodeName, NodeIPs: a.cfg.NodeIPs,
		Server: a.cluster.ServerURL, ServerHere: a.cluster.ServerURL != balancerURL, Alone: a.cluster.alone,
		ServiceIPs: a.cluster.ServiceIPs, ClusterDomain: a.cluster.Domain, PodCIDRs: a.cluster.ClusterCIDRs, Log: a.log,
		Filters: a.filters(), Reach: a.reach,
	})
}

// reach says whether a server takes connections; of one in this process it is not known before it is asked.
func (a *Agent) reach(ctx context.Context) error {
	if b := a.balancer.Load(); b != nil {
		return b.Reach(ctx)
	}
	return nil
}

// endpointSlices are what consumers of Services read.
func endpointSlices() schema.GroupResource {
	return schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
}

// filters are what features change in the node's view of the API: the grid keeps traffic inside the unit.
func (a *Agent) filters() []autonomy.Filter {
	if a.traffic == nil {
		return nil
	}
	return []autonomy.Filter{autonomy.ForServices(endpointSlices(), a.traffic.Change)}
}

// openTraffic prepares what the grid's filter knows, where there are grids.
func (a *Agent) openTraffic() error {
	if a.cluster.NoGrid {
		return nil
	}
	var err error
	a.traffic, err = grid.NewView(grid.ViewConfig{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName,
		Changed: func() { a.api.Reevaluate(endpointSlices()) },
	})
	if err != nil {
		return err
	}
	return a.traffic.Prepare()
}

func (a *Agent) gridTraffic() (supervisor.Component, error) {
	if a.traffic == nil {
		return nil, nil
	}
	return a.traffic, nil
}

// NodeAPI is what the node's parts use instead of the server; it starts before them, and needs nothing of the server to start.
func (a *Agent) NodeAPI() supervisor.Component { return a.api }
