// Package v1 is the grids of superedge.io/v1, and of tkeedge.io/v1, the older group of the same shapes.
// Data only; anyone may import it.
package v1

// Names of the API.
const (
	Group    = "superedge.io"
	OldGroup = "tkeedge.io"
	Version  = "v1"

	KindDeploymentGrid  = "DeploymentGrid"
	KindStatefulSetGrid = "StatefulSetGrid"
	KindServiceGrid     = "ServiceGrid"

	// LabelGrid names, on a generated object, the grid that it belongs to.
	LabelGrid = "superedge.io/grid-selector"
	// LabelKey names, on a generated object, the grid's node label.
	LabelKey = "superedge.io/grid-uniq-key"
	// LabelFederated asks SuperEdge to copy a grid into the other clusters of a federation.
	LabelFederated = "superedge.io/fed"
	// LabelTemplate is, on the pods of a generated workload, the hash of the template that they are made of.
	LabelTemplate = "superedge.io/template-hash-key"
	// AnnotationTopology of a Service is a JSON list of node labels: consumers see the endpoints whose node has the value of theirs.
	AnnotationTopology = "topologyKeys"

	// DefaultTemplate is the name of spec.template among the templates of a pool.
	DefaultTemplate = "default"
	// ServiceSuffix follows the name of a ServiceGrid in the name of its Service.
	ServiceSuffix = "-svc"
)

// GridSpec is the spec of a DeploymentGrid or a StatefulSetGrid; templates are of the spec of a Deployment or StatefulSet.
type GridSpec struct {
	// GridUniqKey is a label of nodes: each value of it is a unit.
	GridUniqKey string `json:"gridUniqKey"`
	// Template is what each unit gets.
	Template map[string]any `json:"template,omitempty"`
	// TemplatePool are further templates by name.
	TemplatePool map[string]map[string]any `json:"templatePool,omitempty"`
	// Templates names the template of a unit.
	Templates map[string]string `json:"templates,omitempty"`
	// DefaultTemplateName is the template of units that Templates does not name.
	DefaultTemplateName string `json:"defaultTemplateName,omitempty"`
	// AutoDeleteUnusedTemplate removes templates of the pool that no unit uses.
	AutoDeleteUnusedTemplate bool `json:"autoDeleteUnusedTemplate,omitempty"`
}

// ServiceGridSpec is the spec of a ServiceGrid.
type ServiceGridSpec struct {
	// GridUniqKey is a label of nodes: traffic stays between nodes with the same value of it.
	GridUniqKey string `json:"gridUniqKey"`
	// Template is the spec of the Service.
	Template map[string]any `json:"template,omitempty"`
}
