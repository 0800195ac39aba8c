package controlplane

import (
	"context"
	"fmt"

	"github.com/kedge-io/kedge/pkg/controlplane/policies"
	kcmapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// ControllerManager is kube-controller-manager as a component. It must start after the API
// server is ready: before RBAC bootstrap its first lists are forbidden.
type ControllerManager struct {
	options    *kcmoptions.KubeControllerManagerOptions
	kubeconfig string
	probe      *probe
}

// aController is part of a line of the health report that is there when all controllers have been made, which
// without election of a leader is soon.
const aController = "-controller ok"

// NewControllerManager parses and checks the arguments of kube-controller-manager; it starts nothing.
func NewControllerManager(cfg Config) (*ControllerManager, error) {
	o, err := kcmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("make kube-controller-manager options: %w", err)
	}
	sets := o.Flags(kcmapp.KnownControllers(), kcmapp.ControllersDisabledByDefault(), kcmapp.ControllerAliases())
	if err := parseFlags(sets, controllerManagerArgs(cfg)); err != nil {
		return nil, fmt.Errorf("parse kube-controller-manager arguments: %w", err)
	}
	o.ParsedFlags = &sets
	url := fmt.Sprintf("https://%s/healthz?verbose", netJoin("127.0.0.1", o.SecureServing.BindPort))
	m := &ControllerManager{options: o, kubeconfig: cfg.Files.AdminKubeconfig, probe: newProbe(url, "")}
	if !o.Generic.LeaderElection.LeaderElect {
		m.probe.want = aController
	}
	return m, nil
}

// Name implements supervisor.Component.
func (*ControllerManager) Name() string { return "controller-manager" }

// Run implements supervisor.Component.
func (m *ControllerManager) Run(ctx context.Context) error {
	c, err := m.options.Config(ctx, kcmapp.KnownControllers(), kcmapp.ControllersDisabledByDefault(), kcmapp.ControllerAliases())
	if err != nil {
		return fmt.Errorf("build configuration: %w", err)
	}
	checker, err := policies.New(m.kubeconfig)
	if err != nil {
		return fmt.Errorf("prepare the check of policies: %w", err)
	}
	go checker.Run(ctx)
	if err := kcmapp.Run(ctx, c.Complete()); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Ready implements supervisor.Component. On a single server it means that all controllers have been made.
func (m *ControllerManager) Ready(ctx context.Context) error { return m.probe.check(ctx) }
