package addons

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/manifests"
	"github.com/kedge-io/kedge/test/lab"
)

const limit = 90 * time.Second

// site is one server that has the busybox image.
func site(t *testing.T, args ...string) (*lab.Lab, *lab.Node) {
	t.Helper()
	l := lab.New(t)
	s1 := l.AddSite("shop").AddNode("s1", lab.Server(args...))
	s1.AddBusybox()
	s1.Start()
	s1.AwaitReady()
	return l, s1
}

const app = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: %d
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: main, image: "kedge.local/busybox:1", command: [sleep, "100000"]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting}
data: {text: %s}
`

const kind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {%s: {type: string, description: of oak}}}}}}
`

// TestNewcomer drops a file, edits it, breaks it, mends it and removes it.
func TestNewcomer(t *testing.T) {
	l, s1 := site(t)
	file := filepath.Join(s1.HostPath("/var/lib/kedge/server/manifests"), "hello.yaml")
	put := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	greeting := func() string { return s1.Kubectl("get", "configmap", "greeting", "-o", "jsonpath={.data.text}") }

	begin := time.Now()
	put(fmt.Sprintf(app, 1, "first"))
	s1.AwaitPods("default", "app=hello", 1)
	t.Logf("a pod runs %v after its file was dropped", time.Since(begin).Round(time.Millisecond))
	await(l, s1, "hello", "True", "2 objects")

	put(fmt.Sprintf(app, 2, "second"))
	pods := s1.AwaitPods("default", "app=hello", 2)
	l.Await("the edited value", limit, func() error {
		if got := greeting(); got != "second" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})

	put(strings.Replace(fmt.Sprintf(app, 3, "third"), "kind: ConfigMap", "kind: [ConfigMap", 1))
	await(l, s1, "hello", "False", "line")
	if got := greeting(); got != "second" {
		t.Errorf("a broken file changed the greeting to %q", got)
	}
	for _, p := range s1.AwaitPods("default", "app=hello", 2) {
		if p.UID != pods[0].UID && p.UID != pods[1].UID {
			t.Errorf("a broken file replaced the pod %s", p.Name)
		}
	}

	explain(l, s1, put)
	put(fmt.Sprintf(app, 1, "fourth"))
	await(l, s1, "hello", "True", "2 objects")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	l.Await("everything of the file is gone", limit, func() error {
		if left := s1.Kubectl("get", "deployments,pods,configmaps,addons", "-o", "name", "--ignore-not-found"); strings.Contains(left, "hello") || strings.Contains(left, "greeting") {
			return fmt.Errorf("there are %s", left)
		}
		return nil
	})
}

// explain checks that documents of a kind that the folder brings follow its definition.
func explain(l *lab.Lab, s1 *lab.Node, put func(string)) {
	for _, field := range []string{"keel", "mast"} {
		put(fmt.Sprintf(kind, field))
		l.Await("the documents name the field "+field, limit, func() error {
			said, err := s1.TryKubectl("explain", "boats.spec."+field)
			if err == nil && !strings.Contains(said, "of oak") {
				err = fmt.Errorf("kubectl explain says %s", said)
			}
			return err
		})
	}
}

// await waits until kubectl get addons shows a file as ready or not, with a message that contains a text.
func await(l *lab.Lab, s1 *lab.Node, addon, ready, message string) {
	l.Await("the AddOn "+addon, limit, func() error {
		line, err := s1.TryKubectl("get", "addons", addon, "--no-headers")
		if err != nil {
			return err
		}
		if fields := strings.Fields(line); len(fields) < 3 || fields[2] != ready || !strings.Contains(line, message) {
			return fmt.Errorf("it says %q", line)
		}
		return nil
	})
}

// TestEverythingDisabled runs a pod on a site without any add-on.
func TestEverythingDisabled(t *testing.T) {
	files, err := fs.Glob(manifests.FS(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const needed = "addons rbac" // what kedge itself cannot be without
	args := []string{"--disable", "servicelb", "--disable-network-policy"}
	for _, file := range files {
		if name := strings.TrimSuffix(file, ".yaml"); !strings.Contains(needed, name) {
			args = append(args, "--disable", name)
		}
	}
	_, s1 := site(t, args...)
	s1.Apply(fmt.Sprintf(app, 2, "alone"))
	s1.AwaitPods("default", "app=hello", 2)
	got := strings.Fields(s1.Kubectl("get", "addons", "-o", "jsonpath={.items[*].metadata.name}"))
	if strings.Join(got, " ") != needed {
		t.Errorf("add-ons are %v with %v", got, args)
	}
	for _, line := range strings.Split(s1.Log(), "\n") {
		if strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "E1") {
			t.Logf("logged: %s", line)
		}
	}
}
