package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/test/lab"
)

const runtimePod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  runtimeClassName: %[1]s
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "kedge.local/busybox:1", command: [sleep, "100000"]}]
---
`

// wrapper stands for a runtime of the host: it writes down that it was called, and has runc do the work.
const wrapper = `#!/bin/sh
echo "$@" >>/var/log/crun.log
for runc in /var/lib/kedge/data/*/bin/runc; do exec "$runc" "$@"; done
`

// TestRuntimeClass runs a pod with a runtime that the host has. A pod that wants one that it has not waits, and its Event says so.
func TestRuntimeClass(t *testing.T) {
	l := lab.New(t)
	s1 := l.AddSite("shop").AddNode("s1", lab.Role{})
	role := lab.Server()
	role.Env = []string{"PATH=/var/lib/extra:/opt/kedge/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	s1.SetRole(role)
	write(t, s1, map[string][]byte{"/var/lib/extra/crun": []byte(wrapper)})
	s1.AddBusybox()
	s1.Start()
	s1.AwaitReady()
	s1.Apply(fmt.Sprintf(runtimePod, "crun") + fmt.Sprintf(runtimePod, "wasmer"))
	s1.AwaitPods("default", "app=crun", 1)
	if calls := s1.Exec("cat", "/var/log/crun.log"); !strings.Contains(calls, " create ") {
		t.Errorf("the runtime was not asked to create a container:\n%s", calls)
	}
	if out := s1.Kubectl("exec", "crun", "--", "echo", "here"); out != "here" {
		t.Errorf("exec says %q", out)
	}
	awaitEvent(t, l, s1, "wasmer", `no runtime for "wasmer" is configured`)
}
