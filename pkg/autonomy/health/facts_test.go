package health

import (
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

func newNode(name, ip string, marks ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid", Labels: map[string]string{}, Annotations: map[string]string{}}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	for i := 0; i+1 < len(marks); i += 2 {
		n.Annotations[marks[i]] = marks[i+1]
	}
	return n
}

func labelled(n *corev1.Node, key, value string) *corev1.Node {
	n.Labels[key] = value
	return n
}

func TestMarksOfOthers(t *testing.T) {
	s := defaults()
	s.edge = 24 * time.Hour
	for name, tc := range map[string]struct {
		node             *corev1.Node
		patience         time.Duration
		bound, condemned bool
	}{
		"plain":               {newNode("n", ""), 5 * time.Minute, false, false},
		"edge":                {labelled(newNode("n", ""), "node-role.kubernetes.io/edge", ""), 24 * time.Hour, false, false},
		"OpenYurt's worker":   {labelled(newNode("n", ""), "openyurt.io/is-edge-worker", "true"), 24 * time.Hour, false, false},
		"SuperEdge's node":    {labelled(newNode("n", ""), "superedge.io/node-edge", "enable"), 24 * time.Hour, false, false},
		"duration":            {newNode("n", "", "node.openyurt.io/autonomy-duration", "2h", "node.beta.openyurt.io/autonomy", "true"), 2 * time.Hour, false, false},
		"duration for ever":   {newNode("n", "", "node.openyurt.io/autonomy-duration", "0"), 0, false, false},
		"duration as a label": {labelled(newNode("n", ""), "node.openyurt.io/autonomy-duration", "1h"), time.Hour, false, false},
		"bad duration":        {newNode("n", "", "node.openyurt.io/autonomy-duration", "a while"), 5 * time.Minute, false, false},
		"autonomy":            {newNode("n", "", "node.beta.openyurt.io/autonomy", "true"), 0, false, false},
		"binding":             {newNode("n", "", "apps.openyurt.io/binding", "true"), 5 * time.Minute, true, false},
		"unhealthy":           {newNode("n", "", "nodeunhealth", "yes"), 5 * time.Minute, false, true},
		"healthy":             {newNode("n", "", "nodeunhealth", "no"), 5 * time.Minute, false, false},
	} {
		m := memory{}
		m.see(tc.node, nil, s, time.Now())
		f := m.fact(tc.node, s, time.Now())
		if f.Patience != tc.patience || f.Bound != tc.bound || f.Condemned != tc.condemned {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestMemory(t *testing.T) {
	s, now := defaults(), time.Now()
	n := newNode("n", "", note.Neighbours, `{"alive":["a"],"gone":["b"]}`)
	lease := func(at int64) *coordinationv1.Lease {
		when := metav1.NewMicroTime(time.Unix(at, 0)) // its clock may be far off
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &when}}
	}
	after := func(d int) time.Time { return now.Add(time.Duration(d) * time.Second) }
	m := memory{}
	m.see(n, lease(7), s, now)
	if f := m.fact(n, s, after(3)); f.Silence != 3*time.Second || len(f.Votes) != 0 {
		t.Errorf("before its first word: %+v", f)
	}
	m.see(n, lease(7), s, after(5))
	m.see(n, lease(6), s, after(10))
	f := m.fact(n, s, after(12))
	if f.Silence != 2*time.Second || f.Votes["b"] != (verdict.Vote{View: verdict.Gone, For: 12 * time.Second}) {
		t.Errorf("after its first word: %+v", f)
	}
	n.Annotations[note.Neighbours] = `{"gone":["a","b"]}`
	m.see(n, lease(6), s, after(20))
	if f := m.fact(n, s, after(21)); f.Votes["a"].For != time.Second || f.Votes["b"].For != 21*time.Second || f.Silence != 11*time.Second {
		t.Errorf("another report: %+v", f)
	}
	n.Spec.Taints = []corev1.Taint{deadTaint()}
	m.see(n, lease(6), s, after(30))
	if !m.fact(n, s, after(30)).WasDead {
		t.Error("what another server decided is not seen")
	}
	m.see(n, lease(8), s, after(31))
	if f := m.fact(n, s, after(31)); f.WasDead || f.Silence != 0 {
		t.Errorf("back to life: %+v", f)
	}
	n.Annotations[note.Neighbours] = "{"
	m.see(n, lease(8), s, after(32))
	if f := m.fact(n, s, after(32)); len(f.Votes) != 0 {
		t.Errorf("nonsense: %+v", f)
	}
	n.UID, n.Spec.Taints = "another", nil
	n.Status.Conditions = []corev1.NodeCondition{{Type: LinkUp, Status: corev1.ConditionFalse}}
	m.see(n, lease(9), s, after(40))
	if f := m.fact(n, s, after(40)); f.WasDead || f.Silence != s.rules.LostAfter {
		t.Errorf("another node of the name, which was lost when the server ended: %+v", f)
	}
}

func TestPlaces(t *testing.T) {
	s := defaults()
	nodes := []*corev1.Node{
		newNode("far", "192.168.7.1"), newNode("s1", "10.0.0.1"), newNode("s2", "10.0.0.2"), newNode("s3", "10.0.0.3"),
		newNode("s4", "10.0.0.4"), newNode("s5", "10.0.0.5"), newNode("s6", "10.0.0.6"), newNode("none", ""),
		labelled(newNode("p1", "10.0.0.8"), "apps.openyurt.io/nodepool", "p"), labelled(newNode("p2", "10.9.0.8"), "apps.openyurt.io/nodepool", "p"),
		labelled(newNode("q1", "10.0.0.9"), "apps.openyurt.io/nodepool", "q"),
	}
	got := places(s, nodes, map[string]bool{"s2": true})
	if p := got["s1"]; !p.Near || p.Unit != "" || p.Port != 6447 || p.Probe != 1000 || !slices.Equal(p.Seeds, []string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}) {
		t.Errorf("%+v", p)
	}
	if p := got["p1"]; p.Near || p.Unit != "p" || !slices.Equal(p.Seeds, []string{"10.9.0.8"}) {
		t.Errorf("%+v", p)
	}
	if _, ok := got["q1"]; ok {
		t.Error("a node without neighbours gossips")
	}
	s.gossip = false
	if got := places(s, nodes, nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
