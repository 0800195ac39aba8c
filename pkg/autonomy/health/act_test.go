package health

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

func TestTaintsOfVerdicts(t *testing.T) {
	unreachable := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}
	keepOff := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule}
	foreign := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "admin", Effect: corev1.TaintEffectNoExecute}
	for name, tc := range map[string]struct {
		state verdict.State
		evict bool
		has   []corev1.Taint
		want  string
	}{
		"cut off":         {verdict.CutOff, false, []corev1.Taint{keepOff, unreachable}, "unreachable:NoSchedule"},
		"lost":            {verdict.Lost, false, []corev1.Taint{unreachable, keepOff}, "unreachable:NoSchedule"},
		"linked":          {verdict.Linked, false, []corev1.Taint{unreachable, deadTaint()}, "unreachable:NoExecute"},
		"dead":            {verdict.Dead, true, []corev1.Taint{keepOff}, "unreachable:NoSchedule out-of-service:NoExecute"},
		"dead already":    {verdict.Dead, true, []corev1.Taint{deadTaint()}, "out-of-service:NoExecute"},
		"dead, bound":     {verdict.Dead, false, []corev1.Taint{keepOff, unreachable}, "unreachable:NoSchedule"},
		"expired":         {verdict.Expired, true, []corev1.Taint{keepOff, unreachable}, "unreachable:NoSchedule unreachable:NoExecute"},
		"somebody's":      {verdict.Linked, false, []corev1.Taint{foreign}, "out-of-service:NoExecute"},
		"alive after all": {verdict.CutOff, false, []corev1.Taint{keepOff, deadTaint()}, "unreachable:NoSchedule"},
	} {
		n := &corev1.Node{Spec: corev1.NodeSpec{Taints: tc.has}}
		got := ""
		for _, taint := range wantTaints(n, verdict.Verdict{State: tc.state, Evict: tc.evict}) {
			if got != "" {
				got += " "
			}
			got += taint.Key[len("node.kubernetes.io/"):] + ":" + string(taint.Effect)
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestConditionsOfVerdicts(t *testing.T) {
	now := metav1.Now()
	for state, want := range map[verdict.State]string{
		verdict.Linked: "True False", verdict.Lost: "False Unknown", verdict.CutOff: "False True", verdict.Dead: "False False", verdict.Expired: "False False",
	} {
		v := verdict.Verdict{State: state, Why: "because"}
		n := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now}}}}
		change := statusChange(n, v, metav1.NewTime(now.Add(time.Minute)))
		if got := string(change[0].Status) + " " + string(change[1].Status); got != want {
			t.Errorf("%s: %s, want %s", state, got, want)
		}
		if dead := len(change) == 3; dead != (state == verdict.Dead) {
			t.Errorf("%s: %v", state, change)
		} else if dead && (change[2].Status != corev1.ConditionUnknown || !change[2].LastHeartbeatTime.Equal(&now)) {
			t.Errorf("ready: %v", change[2])
		}
		n.Status.Conditions = change
		if again := statusChange(n, v, now); len(again) != 0 {
			t.Errorf("%s: written again: %v", state, again)
		}
	}
}

func TestStepsOfPods(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	all := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	short := []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds(300)}}
	daemon := []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}
	deleted := metav1.Now()
	for name, tc := range map[string]struct {
		state   verdict.State
		silence time.Duration
		going   bool
		ready   bool
		tolerat []corev1.Toleration
		want    step
	}{
		"dead, ready":              {verdict.Dead, 0, false, true, short, unready},
		"dead, not ready":          {verdict.Dead, 0, false, false, short, leave},
		"dead, going":              {verdict.Dead, 0, true, true, short, forget},
		"dead, going, of the node": {verdict.Dead, 0, true, true, all, leave},
		"expired":                  {verdict.Expired, 301 * time.Second, false, true, short, evict},
		"expired before its time":  {verdict.Expired, 299 * time.Second, false, true, short, unready},
		"expired, a DaemonSet's":   {verdict.Expired, time.Hour, false, true, daemon, unready},
		"expired, no toleration":   {verdict.Expired, time.Minute, false, false, nil, evict},
		"expired, going":           {verdict.Expired, time.Hour, true, true, short, leave},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tc.tolerat}}
		if tc.going {
			pod.DeletionTimestamp = &deleted
		}
		if tc.ready {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		if got := next(pod, tc.state, tc.silence); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
