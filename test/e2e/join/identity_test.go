package join

import (
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// refused starts kedge on a node and expects it to end with lines for the operator.
func (s *scene) refused(n *lab.Node, parts ...string) {
	s.Helper()
	n.Start()
	if err := n.AwaitExit(time.Minute); err == nil {
		s.Errorf("%s ended without an error", n.Name())
	}
	s.wantLog(n, parts...)
}

func TestNamesAndTokens(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.a1.Start()
	s.s1.AwaitNodes("a1")

	thief := s.farm.AddNode("t1", lab.Agent("--server", s.s1.URL(), "--token", s.token, "--node-name", "a1"))
	s.refused(thief, "kedge: node name a1 belongs to another machine", "kedge node readopt a1", "--node-name")
	thief.SetRole(lab.Agent("--server", s.s1.URL(), "--token", s.token, "--node-name", "s1"))
	s.refused(thief, "node name s1 belongs to another machine")
	thief.SetRole(lab.Agent("--server", s.s1.URL(), "--token", "wrong"))
	s.refused(thief, "refuses the token")
	thief.SetRole(lab.Agent("--server", s.s1.URL(), "--token", "K10"+strings.Repeat("0", 64)+s.token[67:]))
	s.refused(thief, "is not the one of the token")

	boot := s.s1.Kedge("token", "create", "--ttl", "5m", "--description", "for the farm")
	if list := s.s1.Kedge("token", "list"); !strings.Contains(list, "for the farm") || strings.Contains(list, boot[strings.LastIndex(boot, ".")+1:]) {
		t.Errorf("tokens:\n%s", list)
	}
	s.f1.SetRole(lab.Agent("--server", s.s1.URL(), "--token", boot))
	s.f1.Start()
	s.s1.AwaitNodes("f1")

	// The farm's machine takes the place of the one in the shop.
	s.a1.Stop()
	s.s1.Kedge("node", "readopt", "a1")
	thief.SetRole(lab.Agent("--server", s.s1.URL(), "--token", s.token, "--node-name", "a1"))
	thief.Start()
	s.lab.Await("the new a1", time.Minute, func() error {
		_, err := s.s1.Run("/opt/kedge/bin/kedge", "kubectl", "get", "--raw", "/api/v1/nodes/a1/proxy/healthz")
		return err
	})
}

func TestNodeSpeaksForItselfOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.a1.Start()
	s.f1.Start()
	s.s1.AwaitNodes("a1", "f1")
	pod := s.pod("f1")
	s.s1.Kubectl("create", "secret", "generic", "private", "--from-literal=a=b")
	kubelet := func(args ...string) []string {
		return append([]string{"/opt/kedge/bin/kedge", "kubectl", "--kubeconfig", "/var/lib/kedge/agent/kubelet.kubeconfig"}, args...)
	}
	for _, args := range [][]string{
		{"get", "node", "f1"}, {"label", "node", "f1", "x=y"}, {"delete", "node", "f1"}, {"annotate", "node", "f1", "x=y"},
		{"delete", "pod", pod}, {"exec", pod, "--", "true"}, {"logs", pod}, {"get", "secret", "private"}, {"get", "secrets", "-A"},
		{"get", "secret", "-n", "kube-system", "f1.node-identity.kedge"}, {"get", "lease", "-n", "kube-node-lease", "f1"},
		{"label", "node", "a1", "node-role.kubernetes.io/control-plane="}, {"get", "--raw", "/api/v1/nodes/f1/proxy/healthz"},
		{"create", "token", "default"},
	} {
		if out, err := s.a1.Run(kubelet(args...)...); err == nil || !strings.Contains(err.Error(), "orbidden") {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
	if _, err := s.a1.Run(kubelet("get", "node", "a1")...); err != nil {
		t.Errorf("a node cannot read itself: %v", err)
	}
}
