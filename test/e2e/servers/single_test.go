package servers

import (
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/lab"
)

// marker makes an object and returns its version.
func marker(n *lab.Node, name string) string {
	n.Kubectl("create", "configmap", name)
	return version(n, name)
}

// version is that of an object; empty when it does not exist.
func version(n *lab.Node, name string) string {
	return n.Kubectl("get", "configmap", name, "--ignore-not-found", "-o", "jsonpath={.metadata.resourceVersion}")
}

func TestSingleServerMovesToEtcdAndBack(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	s := l.AddSite("one").AddNode("s1", lab.Server("--disable-agent"))
	s.Start()
	s.AwaitReady()
	before := marker(s, "before")
	s.Stop()

	s.SetRole(lab.Server("--disable-agent", "--cluster-init"))
	s.Start()
	s.AwaitReady()
	if got := version(s, "before"); got != before {
		t.Errorf("the object has version %s in etcd, and had %s", got, before)
	}
	snapshot := s.Kedge("snapshot", "save", "--name", "kept")
	if list := s.Kedge("snapshot", "list"); snapshot != "kept" || !strings.Contains(list, "kept") {
		t.Errorf("%s in\n%s", snapshot, list)
	}
	marker(s, "after")
	s.Stop()

	if out := s.Kedge("server", "--disable-agent", "--cluster-reset"); !strings.Contains(out, "start kedge without --cluster-reset") {
		t.Error(out)
	}
	s.Kedge("snapshot", "restore", "kept")
	s.SetRole(lab.Server("--disable-agent")) // an etcd that is there is used
	s.Start()
	s.AwaitReady()
	if got := version(s, "before"); got != before {
		t.Errorf("the object has version %s after the restore, and had %s", got, before)
	}
	if got := version(s, "after"); got != "" {
		t.Errorf("what came after the snapshot is there, version %s", got)
	}
	if last := marker(s, "last"); len(last) < len("10000000") {
		t.Errorf("revision %s after a restore may be one that somebody has seen", last)
	}
}
