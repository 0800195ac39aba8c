package helm

import (
	"fmt"
	"time"

	"helm.sh/helm/v3/pkg/release"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

// step is what to do to a release.
type step int

const (
	install   step = iota // there is none
	upgrade               // there is one that works
	reinstall             // there is one that never worked: remove it first
	mend                  // an upgrade was cut off: call it failed, then upgrade
)

// history is what Helm remembers of a release.
type history struct {
	last     release.Status // of the newest revision; empty when there is no release
	deployed bool           // some revision worked
}

// next decides what brings a release to what is wanted.
func next(h history) step {
	switch {
	case h.last == "" || h.last == release.StatusUninstalled:
		return install
	case !h.deployed || h.last == release.StatusUninstalling:
		return reinstall
	case h.last.IsPending():
		return mend
	}
	return upgrade
}

const (
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
	// defaultBackOffLimit is that of the family.
	defaultBackOffLimit = 1000
	// lookAgain is how soon changes of Secrets are noticed that values come from.
	lookAgain = time.Minute
	// defaultTimeout is of one installation, as in the family.
	defaultTimeout = 5 * time.Minute
)

// due says whether a release wants work now, and if not, when to look again; 0 for only after a change.
func due(chart *v1.HelmChart, in *input, now time.Time, polled bool) (bool, time.Duration) {
	s := chart.Status
	ready := condition(s.Conditions, v1.ConditionReady)
	var later time.Duration
	if polled {
		later = lookAgain
	}
	switch {
	case s.Digest != in.digest || ready == nil || s.Namespace != namespaceOf(chart):
		return true, 0
	case ready.Status == metav1.ConditionTrue:
		return false, later
	case s.Attempts == 0: // cut off in the middle
		return true, 0
	case in.policy == v1.FailurePolicyAbort || s.Attempts > limit(chart):
		return false, later
	}
	wait := ready.LastTransitionTime.Add(retryDelay(s.Attempts)).Sub(now)
	if wait > 0 {
		return false, wait
	}
	return true, 0
}

func limit(chart *v1.HelmChart) int32 {
	if chart.Spec.BackOffLimit != nil {
		return *chart.Spec.BackOffLimit
	}
	return defaultBackOffLimit
}

func retryDelay(attempts int32) time.Duration {
	return min(firstRetry<<min(max(attempts-1, 0), 20), lastRetry)
}

func timeoutOf(chart *v1.HelmChart) time.Duration {
	if t := chart.Spec.Timeout; t != nil && t.Duration > 0 {
		return t.Duration
	}
	return defaultTimeout
}

func namespaceOf(chart *v1.HelmChart) string {
	if chart.Spec.TargetNamespace != "" {
		return chart.Spec.TargetNamespace
	}
	return chart.Namespace
}

// check says what is wrong with a HelmChart that no schema can tell.
func check(chart *v1.HelmChart) error {
	if v := chart.Spec.HelmVersion; v != "" && v != "v3" && v != "3" {
		return fmt.Errorf("helmVersion: %q is not known: leave it out, kedge has Helm 3 built in", v)
	}
	if len(chart.Name) > 53 {
		return fmt.Errorf("metadata.name: %d characters: the release has the same name, and Helm takes at most 53", len(chart.Name))
	}
	return nil
}

func condition(list []metav1.Condition, kind string) *metav1.Condition {
	for i := range list {
		if list[i].Type == kind {
			return &list[i]
		}
	}
	return nil
}
