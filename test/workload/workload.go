// Package workload is one of each kind of pod, and what they offer each other: tests put it on a node that is to work without its server. Tests under
// test/ may import it; the product never does.
package workload

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Pods is how many pods there are: a Deployment behind a Service, a StatefulSet with volumes, a DaemonSet, a pod in the host's network, pods that read a
// ConfigMap and a Secret, and one that asks the API under an account of its own.
const Pods = 10

//go:embed pods.yaml
var pods string

// Manifest makes the pods, all on one node. kedge is the path of the program there: a pod asks the API with it.
func Manifest(node, kedge string) string {
	return strings.NewReplacer("NODE", node, "KEDGE", path.Dir(kedge)).Replace(pods)
}

// inPod is where the pod that asks the API finds the program.
const inPod = "/opt/kedge/bin/kedge"

// Kept is what Write leaves on a volume.
const Kept = "kept"

// Write are arguments of kubectl that write to a volume.
func Write() []string {
	return []string{"exec", "client-0", "--", "sh", "-c", "echo " + Kept + " >/data/file"}
}

// Check is one use of the pods: arguments of kubectl, and what their output contains when it works.
type Check struct {
	What, Want string
	Args       []string
}

// Checks are what must work, with and without the server.
func Checks(pods map[string]corev1.Pod) []Check {
	exec := func(what, want, pod string, command ...string) Check {
		return Check{what, want, append([]string{"exec", pod, "--"}, command...)}
	}
	return []Check{
		exec("exec", "client-0", "client-0", "hostname"),
		exec("a Service by its name", "page", "client-0", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local"),
		exec("a Service by its address", "page", "client-0", "sh", "-c", "wget -q -O - http://$WEB_SERVICE_HOST"),
		exec("the volume", Kept, "client-0", "cat", "/data/file"),
		exec("a ConfigMap and a Secret", "blue hush", PodOf(pods, "material"), "sh", "-c", "echo $(cat /config/color) $(cat /secret/word) $WORD"),
		exec("a client with its own token", "configmap/settings", PodOf(pods, "reader"), inPod, "kubectl", "get", "configmaps", "-o", "name"),
		exec("a table", "reader", PodOf(pods, "reader"), inPod, "kubectl", "get", "serviceaccounts"),
		{"logs", "hello", []string{"logs", "client-0"}},
	}
}

// Forbidden are arguments of kubectl that must fail: a pod without the role for it reads Secrets.
func Forbidden(pods map[string]corev1.Pod) []string {
	return []string{"exec", PodOf(pods, "reader"), "--", inPod, "kubectl", "get", "secrets", "-o", "name"}
}

// Read takes a list of pods as the API gives it, and returns those of the workload by name.
func Read(list []byte) (map[string]corev1.Pod, error) {
	var l corev1.PodList
	if err := json.Unmarshal(list, &l); err != nil {
		return nil, fmt.Errorf("read pods: %w", err)
	}
	byName := map[string]corev1.Pod{}
	for _, p := range l.Items {
		if p.Labels["suite"] == "workload" {
			byName[p.Name] = p
		}
	}
	return byName, nil
}

// PodOf is the first pod of a Deployment: a node does not know Deployments. It is empty when there is none.
func PodOf(pods map[string]corev1.Pod, deployment string) string {
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		if strings.HasPrefix(name, deployment+"-") {
			return name
		}
	}
	return ""
}

// IsReady says whether a pod is.
func IsReady(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// AllReady is nil when all pods are there and ready, in other containers than those of before, unless that is nil.
func AllReady(now, before map[string]corev1.Pod) error {
	if len(now) != Pods {
		return fmt.Errorf("%d pods of %d: %v", len(now), Pods, slices.Sorted(maps.Keys(now)))
	}
	for name, p := range now {
		if !IsReady(p) || len(p.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("%s is not ready: %+v", name, p.Status.ContainerStatuses)
		}
		if before != nil && container(p) == container(before[name]) {
			return fmt.Errorf("%s still shows the container of before", name)
		}
	}
	return nil
}

func container(p corev1.Pod) string {
	if len(p.Status.ContainerStatuses) == 0 {
		return ""
	}
	return p.Status.ContainerStatuses[0].ContainerID
}

// Same is an error for each pod of before that is another one now, or has another address; with containers, also for one whose container is another.
func Same(before, now map[string]corev1.Pod, containers bool) error {
	var errs []error
	for name, old := range before {
		p := now[name]
		if p.UID != old.UID || p.Status.PodIP != old.Status.PodIP {
			errs = append(errs, fmt.Errorf("%s was %s at %s and is %s at %s", name, old.UID, old.Status.PodIP, p.UID, p.Status.PodIP))
		} else if containers && container(p) != container(old) {
			errs = append(errs, fmt.Errorf("%s: its container was restarted", name))
		}
	}
	return errors.Join(errs...)
}
