package helm

import (
	"context"
	"errors"
	"fmt"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/kube"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

// maxHistory is how many revisions of a release are kept.
const maxHistory = 10

// releases works on the releases of one namespace. It is made for one piece of work and then dropped, with all it has learned.
type releases struct {
	cfg       *action.Configuration
	namespace string
}

func (c *Controller) releases(namespace string) (*releases, error) {
	cfg := &action.Configuration{}
	debug := func(format string, v ...any) { c.cfg.Log.Debug("helm", "said", fmt.Sprintf(format, v...)) }
	if err := cfg.Init(&getter{rest: c.rest, namespace: namespace}, namespace, "secret", debug); err != nil {
		return nil, fmt.Errorf("prepare helm: %w", err)
	}
	if k, ok := cfg.KubeClient.(*kube.Client); ok {
		k.Namespace = namespace
	}
	return &releases{cfg: cfg, namespace: namespace}, nil
}

// history asks what is there.
func (r *releases) history(name string) (history, error) {
	all, err := r.cfg.Releases.History(name)
	if errors.Is(err, driver.ErrReleaseNotFound) || err == nil && len(all) == 0 {
		return history{}, nil
	}
	if err != nil {
		return history{}, fmt.Errorf("read release: %w", err)
	}
	h, newest := history{}, 0
	for _, one := range all {
		if one.Version > newest {
			newest, h.last = one.Version, one.Info.Status
		}
		h.deployed = h.deployed || one.Info.Status == release.StatusDeployed
	}
	return h, nil
}

// bring makes the release what is wanted. When an upgrade fails, the last revision that worked is restored, unless the policy is
// abort; rolledBack says so.
func (r *releases) bring(ctx context.Context, in *input, c *chart.Chart, values map[string]any) (rel *release.Release, rolledBack bool, err error) {
	name := in.chart.Name
	h, err := r.history(name)
	if err != nil {
		return nil, false, err
	}
	switch next(h) {
	case reinstall:
		if err := r.remove(in.chart); err != nil {
			return nil, false, err
		}
	case mend:
		if err := r.giveUp(name); err != nil {
			return nil, false, err
		}
		fallthrough
	case upgrade:
		return r.upgrade(ctx, in, c, values)
	case install:
	}
	i := action.NewInstall(r.cfg)
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.Timeout = name, r.namespace, in.chart.Spec.CreateNamespace, timeoutOf(in.chart)
	i.TakeOwnership, i.DisableOpenAPIValidation = in.chart.Spec.TakeOwnership, true // the API server checks, and need not build its documents
	rel, err = i.RunWithContext(ctx, c, values)
	if err != nil {
		return nil, false, fmt.Errorf("install: %w", err)
	}
	return rel, false, nil
}

func (r *releases) upgrade(ctx context.Context, in *input, c *chart.Chart, values map[string]any) (*release.Release, bool, error) {
	before, err := r.cfg.Releases.Deployed(in.chart.Name)
	if err != nil {
		return nil, false, fmt.Errorf("read release: %w", err)
	}
	u := action.NewUpgrade(r.cfg)
	u.Namespace, u.Timeout, u.MaxHistory = r.namespace, timeoutOf(in.chart), maxHistory
	u.TakeOwnership, u.DisableOpenAPIValidation = in.chart.Spec.TakeOwnership, true
	u.ResetValues = true
	u.CleanupOnFail = in.policy != v1.FailurePolicyAbort
	rel, err := u.RunWithContext(ctx, in.chart.Name, c, values)
	if err == nil {
		return rel, false, nil
	}
	err = fmt.Errorf("upgrade: %w", err)
	h, lookErr := r.history(in.chart.Name)
	if in.policy == v1.FailurePolicyAbort || lookErr != nil || h.last == release.StatusDeployed { // nothing was touched yet
		return nil, false, errors.Join(err, lookErr)
	}
	b := action.NewRollback(r.cfg)
	b.Version, b.Timeout, b.MaxHistory = before.Version, timeoutOf(in.chart), maxHistory
	if backErr := b.Run(in.chart.Name); backErr != nil {
		return nil, false, errors.Join(err, fmt.Errorf("roll back to revision %d: %w", before.Version, backErr))
	}
	return nil, true, err
}

// giveUp calls a revision failed that was cut off, so that Helm lets another follow.
func (r *releases) giveUp(name string) error {
	last, err := r.cfg.Releases.Last(name)
	if err != nil {
		return fmt.Errorf("read release: %w", err)
	}
	last.SetStatus(release.StatusFailed, "kedge was stopped meanwhile")
	if err := r.cfg.Releases.Update(last); err != nil {
		return fmt.Errorf("note the cut-off revision: %w", err)
	}
	return nil
}

// remove uninstalls the release, if there is one.
func (r *releases) remove(chart *v1.HelmChart) error {
	h, err := r.history(chart.Name)
	if err != nil || h.last == "" {
		return err
	}
	u := action.NewUninstall(r.cfg)
	u.IgnoreNotFound, u.Timeout = true, timeoutOf(chart)
	if _, err := u.Run(chart.Name); err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return fmt.Errorf("uninstall: %w", err)
	}
	return nil
}

// getter is how Helm reaches the API.
type getter struct {
	rest      *rest.Config
	namespace string
	disco     discovery.CachedDiscoveryInterface
}

// ToRESTConfig implements genericclioptions.RESTClientGetter.
func (g *getter) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(g.rest), nil }

// ToDiscoveryClient implements genericclioptions.RESTClientGetter.
func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	if g.disco == nil {
		client, err := discovery.NewDiscoveryClientForConfig(g.rest)
		if err != nil {
			return nil, err
		}
		g.disco = memory.NewMemCacheClient(client)
	}
	return g.disco, nil
}

// ToRESTMapper implements genericclioptions.RESTClientGetter.
func (g *getter) ToRESTMapper() (meta.RESTMapper, error) {
	disco, err := g.ToDiscoveryClient()
	if err != nil {
		return nil, err
	}
	return restmapper.NewDeferredDiscoveryRESTMapper(disco), nil
}

// ToRawKubeConfigLoader implements genericclioptions.RESTClientGetter.
func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	overrides := &clientcmd.ConfigOverrides{Context: clientcmdapi.Context{Namespace: g.namespace}}
	return clientcmd.NewDefaultClientConfig(clientcmdapi.Config{}, overrides)
}
