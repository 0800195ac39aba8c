// Package grid places the same workloads in every unit of a site and keeps traffic inside the unit, in the dialects of SuperEdge and
// OpenYurt. Server mode runs its controllers and gives its kinds to the API server; agent mode runs a View. It imports no other feature.
package grid

import (
	"context"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1alpha1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta1"
	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/conversion"
	"github.com/kedge-io/kedge/pkg/grid/check"
	"github.com/kedge-io/kedge/pkg/grid/controller"
	"github.com/kedge-io/kedge/pkg/grid/convert"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/grid/view"
	"github.com/kedge-io/kedge/pkg/kube"
)

// Config says what the controllers work with.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file of the server.
	Kubeconfig string
	// Alone says that no other server writes to the same datastore: then the first object of a kind is noticed when it is written.
	Alone bool
	// Off runs no controllers: what grids made before they were switched off is removed.
	Off bool
	// Log receives what an operator should know.
	Log *slog.Logger
}

// Grid is the component "grid", or "leave-grid" when it is off. Several servers may run it at once: all come to the same result.
type Grid struct {
	engine *controller.Engine
	leave  *leave // instead, when it is off
}

// New reads the kubeconfig, connects nothing and starts nothing.
func New(cfg Config) (*Grid, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client, err := kube.Config(cfg.Kubeconfig, "grid")
	if err != nil {
		return nil, err
	}
	if cfg.Off {
		l, err := newLeave(client, cfg.Log)
		return &Grid{leave: l}, err
	}
	engine, err := controller.New(controller.Config{Client: client, Alone: cfg.Alone, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("prepare controllers: %w", err)
	}
	return &Grid{engine: engine}, nil
}

// Name implements supervisor.Component.
func (g *Grid) Name() string {
	if g.leave != nil {
		return "leave-grid"
	}
	return "grid"
}

// Run works until ctx is done. What it made stays.
func (g *Grid) Run(ctx context.Context) error {
	if g.leave != nil {
		return g.leave.run(ctx)
	}
	return g.engine.Run(ctx)
}

// Ready is always nil: grids wait for nobody on this machine.
func (*Grid) Ready(context.Context) error { return nil }

// Use says that somebody writes an object of the kind; from then on the kind is watched.
func (g *Grid) Use(kind schema.GroupKind) {
	if g.engine != nil {
		g.engine.Use(kind)
	}
}

// Kinds are the kinds of the grid for the API server. use, when not nil, hears of each object that somebody writes.
func Kinds(use func(schema.GroupKind)) []conversion.Kind {
	kinds := []conversion.Kind{
		{Group: superedge.Group, Kind: superedge.KindDeploymentGrid, Versions: []string{superedge.Version}, Check: check.Grid(placement.Deployment)},
		{Group: superedge.Group, Kind: superedge.KindStatefulSetGrid, Versions: []string{superedge.Version}, Check: check.Grid(placement.StatefulSet)},
		{Group: superedge.Group, Kind: superedge.KindServiceGrid, Versions: []string{superedge.Version}, Check: check.ServiceGrid},
		{Group: superedge.OldGroup, Kind: superedge.KindDeploymentGrid, Versions: []string{superedge.Version}, Check: check.Grid(placement.Deployment)},
		{Group: superedge.OldGroup, Kind: superedge.KindServiceGrid, Versions: []string{superedge.Version}, Check: check.ServiceGrid},
		{Group: site.Group, Kind: site.KindNodeUnit, Versions: []string{site.Version, site.OldVersion}, Convert: convert.NodeUnit, Check: check.NodeUnit},
		{Group: site.Group, Kind: site.KindNodeGroup, Versions: []string{site.Version, site.OldVersion}, Convert: convert.NodeGroup, Check: check.NodeGroup},
		{Group: v1beta2.Group, Kind: v1beta2.KindNodePool, Versions: []string{"v1beta2", "v1beta1", "v1alpha1"}, Convert: convert.NodePool, Check: check.NodePool},
		{Group: v1beta1.Group, Kind: v1beta1.KindYurtAppSet, Versions: []string{"v1beta1", "v1alpha1"}, Convert: convert.YurtAppSet, Check: check.AppSet},
		{Group: v1alpha1.Group, Kind: v1alpha1.KindYurtAppDaemon, Versions: []string{v1alpha1.Version}, Check: check.AppSet},
		{Group: v1alpha1.Group, Kind: v1alpha1.KindUnitedDeployment, Versions: []string{v1alpha1.Version}, Check: check.AppSet},
	}
	if use == nil {
		return kinds
	}
	for i, k := range kinds {
		kinds[i].Check = func(obj, old *unstructured.Unstructured) conversion.Verdict {
			use(schema.GroupKind{Group: k.Group, Kind: k.Kind})
			return k.Check(obj, old)
		}
	}
	return kinds
}

// View is the component that shows consumers on a node the endpoints of their own unit.
type View = view.View

// ViewConfig says where a View reads and whom it tells.
type ViewConfig = view.Config

// NewView prepares a View; Prepare must be called before it is used, when the kubeconfig exists.
func NewView(cfg ViewConfig) (*View, error) { return view.New(cfg) }
