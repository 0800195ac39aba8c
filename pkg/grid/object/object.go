// Package object writes objects so that nothing is written that is so already, and nothing that belongs to somebody else.
// Rooms of pkg/grid may import it.
package object

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/kube"
)

// Manager is the field manager of what the grid writes.
const Manager = "kedge-grid"

// ErrForeign is the error of an object that belongs to somebody else.
var ErrForeign = errors.New("it exists and belongs to somebody else: remove or rename one of them")

// Final says whether trying again cannot help.
func Final(err error) bool { return errors.Is(err, ErrForeign) || kube.Refused(err) }

// Ensure creates an object, or brings the one of its name in line with it, unless that belongs to another owner. It returns the object as it is then.
func Ensure(ctx context.Context, resource dynamic.ResourceInterface, wanted *unstructured.Unstructured, owner types.UID, create bool) (*unstructured.Unstructured, error) {
	if create {
		made, err := resource.Create(ctx, wanted, metav1.CreateOptions{FieldManager: Manager, FieldValidation: metav1.FieldValidationStrict})
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
	}
	live, err := resource.Get(ctx, wanted.GetName(), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if c := metav1.GetControllerOf(live); c == nil || c.UID != owner {
		return nil, ErrForeign
	}
	if Contains(live.Object, wanted.Object) {
		return live, nil
	}
	return resource.Update(ctx, merge(live, wanted), metav1.UpdateOptions{FieldManager: Manager})
}

// merge is live with the spec of wanted, and its labels and annotations added; it carries live's resourceVersion. What the API gave a
// Service, and replicas that wanted does not speak of, stay.
func merge(live, wanted *unstructured.Unstructured) *unstructured.Unstructured {
	out := live.DeepCopy()
	spec, _ := wanted.DeepCopy().Object["spec"].(map[string]any)
	was, _ := live.Object["spec"].(map[string]any)
	keep := []string{"replicas"}
	if live.GetKind() == "Service" {
		keep = []string{"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"}
		keepNodePorts(was, spec)
	}
	for _, name := range keep {
		if v, had := was[name]; had {
			if _, has := spec[name]; !has {
				spec[name] = v
			}
		}
	}
	out.Object["spec"] = spec
	delete(out.Object, "status")
	for _, field := range []string{"labels", "annotations"} {
		now, _, _ := unstructured.NestedStringMap(out.Object, "metadata", field)
		if now == nil {
			now = map[string]string{}
		}
		add, _, _ := unstructured.NestedStringMap(wanted.Object, "metadata", field)
		for k, v := range add {
			now[k] = v
		}
		_ = unstructured.SetNestedStringMap(out.Object, now, "metadata", field) // a map of strings always fits
	}
	return out
}

// keepNodePorts keeps the node port of a port that does not name one.
func keepNodePorts(was, spec map[string]any) {
	if t, _ := spec["type"].(string); t != "NodePort" && t != "LoadBalancer" {
		return
	}
	given := map[string]any{}
	old, _ := was["ports"].([]any)
	for _, p := range old {
		if p, ok := p.(map[string]any); ok {
			given[fmt.Sprint(p["port"], protocol(p))] = p["nodePort"]
		}
	}
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		if p, ok := p.(map[string]any); ok && p["nodePort"] == nil {
			if n := given[fmt.Sprint(p["port"], protocol(p))]; n != nil {
				p["nodePort"] = n
			}
		}
	}
}

func protocol(port map[string]any) any {
	if p, ok := port["protocol"]; ok {
		return p
	}
	return "TCP"
}

// Contains says whether all that wanted says is so in live; what the API filled in beyond that does not count.
func Contains(live, wanted any) bool {
	switch w := wanted.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return len(w) == 0
		}
		for k, v := range w {
			if !Contains(l[k], v) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		if !ok || len(l) != len(w) {
			return len(w) == 0 && len(l) == 0
		}
		for i := range w {
			if !Contains(l[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(live, wanted)
}
