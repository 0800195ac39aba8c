package controlplane

import (
	"context"
	"fmt"

	schedapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedoptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// Scheduler is kube-scheduler as a component.
type Scheduler struct {
	options *schedoptions.Options
	probe   *probe
}

// NewScheduler parses and checks the arguments of kube-scheduler; it starts nothing.
func NewScheduler(cfg Config) (*Scheduler, error) {
	o := schedoptions.NewOptions()
	if err := parseFlags(*o.Flags, schedulerArgs(cfg)); err != nil {
		return nil, fmt.Errorf("parse kube-scheduler arguments: %w", err)
	}
	url := fmt.Sprintf("https://%s/readyz", netJoin("127.0.0.1", o.SecureServing.BindPort))
	return &Scheduler{options: o, probe: newProbe(url, "")}, nil
}

// Name implements supervisor.Component.
func (*Scheduler) Name() string { return "scheduler" }

// Run implements supervisor.Component. Without leader election upstream's Run ends with an
// error even when it was told to stop; that one is not a failure.
func (s *Scheduler) Run(ctx context.Context) error {
	cc, sched, err := schedapp.Setup(ctx, s.options)
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := schedapp.Run(ctx, cc, sched); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Ready implements supervisor.Component.
func (s *Scheduler) Ready(ctx context.Context) error { return s.probe.check(ctx) }
