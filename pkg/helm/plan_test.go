package helm

import (
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/release"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

func TestNextStep(t *testing.T) {
	for _, c := range []struct {
		last     release.Status
		deployed bool
		want     step
	}{
		{"", false, install},
		{release.StatusUninstalled, false, install},
		{release.StatusDeployed, true, upgrade},
		{release.StatusFailed, true, upgrade},
		{release.StatusFailed, false, reinstall},
		{release.StatusPendingInstall, false, reinstall},
		{release.StatusPendingUpgrade, true, mend},
		{release.StatusPendingRollback, true, mend},
		{release.StatusUninstalling, true, reinstall},
	} {
		if got := next(history{c.last, c.deployed}); got != c.want {
			t.Errorf("after %q, deployed %t: %d, want %d", c.last, c.deployed, got, c.want)
		}
	}
}

func TestDue(t *testing.T) {
	now := time.Now()
	chart := func(digest string, attempts int32, ready metav1.ConditionStatus, ago time.Duration) *v1.HelmChart {
		c := &v1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n"}}
		c.Status = v1.HelmChartStatus{Digest: digest, Attempts: attempts, Namespace: "n", Conditions: []metav1.Condition{
			{Type: v1.ConditionReady, Status: ready, LastTransitionTime: metav1.NewTime(now.Add(-ago))}}}
		return c
	}
	limited := chart("d", 4, metav1.ConditionFalse, time.Hour)
	three := int32(3)
	limited.Spec.BackOffLimit = &three
	moved := chart("d", 0, metav1.ConditionTrue, 0)
	moved.Spec.TargetNamespace = "other"
	for name, c := range map[string]struct {
		chart  *v1.HelmChart
		policy string
		polled bool
		due    bool
		wait   time.Duration
	}{
		"new":             {chart: &v1.HelmChart{}, due: true},
		"done":            {chart: chart("d", 0, metav1.ConditionTrue, 0)},
		"done, polled":    {chart: chart("d", 0, metav1.ConditionTrue, 0), polled: true, wait: lookAgain},
		"changed":         {chart: chart("other", 5, metav1.ConditionTrue, 0), due: true},
		"cut off":         {chart: chart("d", 0, metav1.ConditionFalse, 0), due: true},
		"failed just now": {chart: chart("d", 1, metav1.ConditionFalse, 0), wait: firstRetry},
		"failed twice":    {chart: chart("d", 2, metav1.ConditionFalse, firstRetry), wait: firstRetry},
		"failed long ago": {chart: chart("d", 3, metav1.ConditionFalse, time.Hour), due: true},
		"aborted":         {chart: chart("d", 1, metav1.ConditionFalse, time.Hour), policy: v1.FailurePolicyAbort},
		"too often":       {chart: limited},
		"moved":           {chart: moved, due: true},
	} {
		got, wait := due(c.chart, &input{policy: c.policy, digest: "d"}, now, c.polled)
		if got != c.due || (wait-c.wait).Abs() > time.Second {
			t.Errorf("%s: %t, %v; want %t, %v", name, got, wait, c.due, c.wait)
		}
	}
	if retryDelay(100) != lastRetry {
		t.Errorf("retry after %v", retryDelay(100))
	}
}

func TestCheck(t *testing.T) {
	bad := &v1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("x", 54)}}
	old := &v1.HelmChart{Spec: v1.HelmChartSpec{HelmVersion: "v2"}}
	if err := check(bad); err == nil || !strings.Contains(err.Error(), "metadata.name") {
		t.Errorf("long name: %v", err)
	}
	if err := check(old); err == nil || !strings.Contains(err.Error(), "helmVersion") {
		t.Errorf("helm 2: %v", err)
	}
	if err := check(&v1.HelmChart{Spec: v1.HelmChartSpec{HelmVersion: "v3", JobImage: "x"}}); err != nil {
		t.Error(err)
	}
}
