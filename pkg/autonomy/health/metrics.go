package health

import (
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// gauges are the metrics, which the API server of this process serves with its own.
type gauges struct {
	nodes *metrics.GaugeVec
	alone *metrics.Gauge
}

func newGauges() *gauges {
	return &gauges{
		nodes: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Name: "kedge_nodes", Help: "Nodes by how they stand with the server: Linked, Lost, CutOff, Dead or Expired.", StabilityLevel: metrics.ALPHA,
		}, []string{"state"}),
		alone: metrics.NewGauge(&metrics.GaugeOpts{
			Name: "kedge_server_alone", Help: "1 when the server hears from no node, which it takes for its own failure.", StabilityLevel: metrics.ALPHA,
		}),
	}
}

func (g *gauges) register() error {
	if err := legacyregistry.Register(g.nodes); err != nil {
		return err
	}
	return legacyregistry.Register(g.alone)
}

func (g *gauges) set(o verdict.Outcome) {
	count := map[verdict.State]int{verdict.Linked: 0, verdict.Lost: 0, verdict.CutOff: 0, verdict.Dead: 0, verdict.Expired: 0}
	for _, v := range o.Verdicts {
		count[v.State]++
	}
	for state, n := range count {
		g.nodes.WithLabelValues(string(state)).Set(float64(n))
	}
	alone := 0.0
	if o.Alone {
		alone = 1
	}
	g.alone.Set(alone)
}
