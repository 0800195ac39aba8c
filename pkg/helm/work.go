package helm

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
	"github.com/kedge-io/kedge/pkg/helm/fetch"
)

// work does what one HelmChart needs now, and says how soon to look at it again; 0 for only after a change.
func (c *Controller) work(ctx context.Context, chart *v1.HelmChart, config *v1.HelmChartConfig) (time.Duration, error) {
	held := slices.Contains(chart.Finalizers, finalizer)
	if chart.DeletionTimestamp != nil {
		if !held {
			return 0, nil
		}
		return 0, c.uninstall(ctx, chart)
	}
	if !held {
		return 0, c.hold(ctx, chart, true) // the change brings us back
	}
	in, err := c.gather(ctx, chart, config)
	if err == nil {
		err = check(chart)
	}
	if err != nil {
		return lookAgain, c.invalid(ctx, chart, err)
	}
	now, wait := due(chart, in, time.Now(), refersToOthers(chart, config))
	if !now {
		return wait, nil
	}
	return c.bring(ctx, in)
}

// invalid says what must be mended by hand.
func (c *Controller) invalid(ctx context.Context, chart *v1.HelmChart, problem error) error {
	if ready := condition(chart.Status.Conditions, v1.ConditionReady); ready != nil && ready.Reason == reasonInvalid && ready.Message == problem.Error() {
		return nil
	}
	c.cfg.Log.Warn("helm chart cannot be installed", "chart", chart.Namespace+"/"+chart.Name, "error", problem)
	c.tell(ctx, chart, corev1.EventTypeWarning, reasonInvalid, problem.Error())
	status := chart.Status
	status.Digest, status.Attempts = "", 0
	return c.note(ctx, chart, status, reasonInvalid, problem.Error())
}

// bring installs or upgrades, and writes down what came of it.
func (c *Controller) bring(ctx context.Context, in *input) (time.Duration, error) {
	chart := in.chart
	if chart.Status.Namespace != "" && chart.Status.Namespace != namespaceOf(chart) {
		if err := c.leave(chart); err != nil {
			return firstRetry, err
		}
	}
	status := chart.Status
	if status.Digest != in.digest {
		status.Attempts = 0
	}
	status.Digest, status.Namespace = in.digest, namespaceOf(chart)
	if err := c.note(ctx, chart, status, reasonWorking, "being installed"); err != nil {
		return firstRetry, err
	}
	status, reason, err := c.attempt(ctx, in, status)
	if ctx.Err() != nil {
		return 0, nil // we are being stopped: the next start finds the work undone
	}
	if err == nil {
		message := fmt.Sprintf("revision %d of chart version %s in namespace %s", status.Revision, status.ChartVersion, status.Namespace)
		c.cfg.Log.Info("helm chart installed", "chart", chart.Namespace+"/"+chart.Name, "version", status.ChartVersion, "revision", status.Revision)
		c.tell(ctx, chart, corev1.EventTypeNormal, reason, message)
		return 0, c.note(ctx, chart, status, reason, message)
	}
	status.Attempts++
	c.cfg.Log.Warn("helm chart not installed", "chart", chart.Namespace+"/"+chart.Name, "reason", reason, "attempt", status.Attempts, "error", err)
	c.tell(ctx, chart, corev1.EventTypeWarning, reason, err.Error())
	return retryDelay(status.Attempts), c.note(ctx, chart, status, reason, err.Error())
}

func (c *Controller) attempt(ctx context.Context, in *input, status v1.HelmChartStatus) (v1.HelmChartStatus, string, error) {
	values, err := mergeValues(in.layers, in.chart.Spec.Set)
	if err != nil {
		return status, reasonFailed, err
	}
	archive, err := fetch.Chart(ctx, in.chart.Spec, in.access)
	if err != nil {
		return status, reasonFailed, err
	}
	r, err := c.releases(status.Namespace)
	if err != nil {
		return status, reasonFailed, err
	}
	rel, back, err := r.bring(ctx, in, archive, values)
	switch {
	case back:
		return status, reasonRolledBack, err
	case err != nil:
		return status, reasonFailed, err
	}
	status.Attempts, status.Revision, status.ChartVersion = 0, rel.Version, rel.Chart.Metadata.Version
	return status, reasonInstalled, nil
}

// leave removes the release from the namespace where it was before.
func (c *Controller) leave(chart *v1.HelmChart) error {
	r, err := c.releases(chart.Status.Namespace)
	if err != nil {
		return err
	}
	return r.remove(chart)
}

// uninstall removes the release of a HelmChart that is being deleted, and lets the HelmChart go.
func (c *Controller) uninstall(ctx context.Context, chart *v1.HelmChart) error {
	namespace := chart.Status.Namespace
	if namespace == "" {
		namespace = namespaceOf(chart)
	}
	r, err := c.releases(namespace)
	if err == nil {
		err = r.remove(chart)
	}
	if err != nil {
		if ctx.Err() == nil {
			c.tell(ctx, chart, corev1.EventTypeWarning, reasonFailed, err.Error())
		}
		return err
	}
	c.cfg.Log.Info("helm chart uninstalled", "chart", chart.Namespace+"/"+chart.Name)
	return c.hold(ctx, chart, false)
}
