package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/test/lab"
)

const (
	// probeTimeout is how long a connection may take; most cells that must fail take it.
	probeTimeout = 1200 * time.Millisecond
	// settled is how long rules may take on a busy machine; the test says how long they took.
	settled = 30 * time.Second
)

// TestTruthTable applies each policy, tries all cells, and compares them with what must answer.
func TestTruthTable(t *testing.T) {
	s := newScene(t)
	begin, cells := time.Now(), 0
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { cells += s.try(t, c) })
	}
	t.Logf("%d policies, %d cells, %v", len(cases()), cells, time.Since(begin).Round(time.Millisecond))
	if cells < 20*81*2 {
		t.Errorf("%d cells are too few", cells)
	}
	s.awaitOpen(t)
	s.podsStayedReady(t)
}

// try applies the policies of a case and returns how many cells were compared.
func (s *scene) try(t *testing.T, c truth) int {
	text := c.policies
	for i := range s.pods { // policies name addresses as $x_a
		text = strings.ReplaceAll(text, "$"+s.pods[i].Namespace+"_"+s.pods[i].Name, s.pods[i].Status.PodIP)
	}
	s.s1.Apply(text)
	defer s.s1.Kubectl("delete", "networkpolicies", "--all", "-A", "--wait=false")
	address, ats := podIPs, []at{{"tcp", 8080}, {"udp", 8080}, {"tcp", 8081}, {"udp", 8081}}
	if c.services {
		address, ats = s.serviceIPs(t), ats[:2]
	}
	begin := time.Now()
	for round := 1; ; round++ {
		got, err := s.matrix(probeTimeout, ats, address)
		wrong := compare(got, c.answers)
		if err == nil && len(wrong) == 0 {
			t.Logf("%d cells right in round %d, %v after the policy was applied", len(got), round, time.Since(begin).Round(time.Millisecond))
			return len(got)
		}
		if time.Since(begin) > settled {
			s.s1.Exec("sh", "-c", "nft list ruleset > /var/log/ruleset.txt")
			t.Errorf("%d of %d cells are wrong, %v:\n%s", len(wrong), len(got), err, strings.Join(wrong[:min(len(wrong), 40)], "\n"))
			return len(got)
		}
	}
}

// compare lists the cells that are not as they must be.
func compare(got map[string]bool, answers func(from, to peer, where at) bool) []string {
	var wrong []string
	for _, cell := range slices.Sorted(maps.Keys(got)) {
		var from, to peer
		var where at
		parts := strings.Fields(cell) // x/a > y/b tcp 8080 #0
		from.ns, from.pod, _ = strings.Cut(parts[0], "/")
		to.ns, to.pod, _ = strings.Cut(parts[2], "/")
		where.network = parts[3]
		_, _ = fmt.Sscan(parts[4], &where.port)
		want := from == to || answers(from, to, where) // a pod always reaches itself
		if got[cell] != want {
			wrong = append(wrong, fmt.Sprintf("%s: answered %v", cell, got[cell]))
		}
	}
	return wrong
}

// serviceIPs finds the addresses of the Service before each pod.
func (s *scene) serviceIPs(t *testing.T) func(*corev1.Pod) []string {
	client, err := s.s1.Client()
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string][]string{}
	for _, service := range list.Items {
		byName[service.Namespace+"/"+service.Name] = service.Spec.ClusterIPs
	}
	return func(p *corev1.Pod) []string { return byName[p.Namespace+"/"+p.Name] }
}

// awaitOpen waits until no policy is in force any more: neither rules nor their copy are left.
func (s *scene) awaitOpen(t *testing.T) {
	for _, node := range []*lab.Node{s.s1, s.a1} {
		s.lab.Await("rules are gone from "+node.Name(), settled, func() error {
			if out, err := node.Run("nft", "list", "table", "inet", "kedge-policy"); err == nil {
				return fmt.Errorf("there are\n%s", out)
			}
			if _, err := os.Stat(node.HostPath("/var/lib/kedge/agent/network-policy.nft")); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("their copy is there: %w", err)
			}
			return nil
		})
	}
	got, err := s.matrix(probeTimeout, []at{{"tcp", 8080}, {"udp", 8080}}, podIPs)
	if wrong := compare(got, func(peer, peer, at) bool { return true }); err != nil || len(wrong) > 0 {
		t.Errorf("without policies: %v, %v", wrong, err)
	}
}

// podsStayedReady checks that no policy kept the kubelet from probing.
func (s *scene) podsStayedReady(t *testing.T) {
	for _, p := range s.s1.AwaitPods("", "app=probe", 9) {
		for i := range s.pods {
			if p.UID == s.pods[i].UID && readySince(&p) != readySince(&s.pods[i]) {
				t.Errorf("%s/%s was not ready for a while", p.Namespace, p.Name)
			}
		}
	}
}

func readySince(p *corev1.Pod) metav1.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime
		}
	}
	return metav1.Time{}
}
