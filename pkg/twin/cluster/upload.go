package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
)

// upload brings desired values that were set at the node to the API.
func (l *Link) upload(ctx context.Context) {
	changes := l.cfg.Hub.Subscribe(hub.Desired, true)
	defer changes.Close()
	for pause := firstRetry; changes.Await(ctx); {
		keys, _ := changes.Take()
		var failed []string
		for _, key := range keys {
			err := l.uploadOne(ctx, key)
			if err == nil || ctx.Err() != nil {
				continue
			}
			failed = append(failed, key)
			if !kube.Unavailable(err) {
				l.complain("device", key, fmt.Errorf("tell the API of a desired value: %w", err))
			}
		}
		if len(failed) == 0 {
			pause = firstRetry
			continue
		}
		sleep(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, lastRetry)
		changes.Again(failed)
	}
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func (l *Link) uploadOne(ctx context.Context, key string) error {
	v, ok := l.cfg.Hub.Get(key)
	if !ok || len(merge.Pending(v.State)) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	namespace, name, _ := strings.Cut(key, "/")
	resource := l.cfg.Client.Resource(v1beta1.Devices()).Namespace(namespace)
	live, err := resource.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the watch says so too
	}
	if err != nil {
		return err
	}
	if err := l.putDevice(live); err != nil && !errors.Is(err, hub.ErrRefused) {
		return err
	}
	if v, ok = l.cfg.Hub.Get(key); !ok { // with what the cluster changed meanwhile, which wins
		return nil
	}
	d, err := v1beta1.Decode[v1beta1.Device](live)
	if err != nil {
		return err
	}
	ops := patchOf(d, v.State)
	if len(ops) == 0 {
		return nil
	}
	data, err := json.Marshal(append([]operation{{"test", "/metadata/resourceVersion", live.GetResourceVersion()}}, ops...))
	if err != nil {
		return err
	}
	// What comes by the watch meanwhile is older than what is written here.
	l.setFloor(key, version(live)+1)
	written, err := resource.Patch(ctx, name, types.JSONPatchType, data, metav1.PatchOptions{})
	if err != nil {
		l.setFloor(key, version(live))
		return err
	}
	l.setFloor(key, version(written))
	for _, property := range merge.Pending(v.State) {
		if err := l.cfg.Hub.Uploaded(key, property, v.State.Twins[property].Desired); err != nil {
			return err
		}
	}
	return nil
}

// patchOf sets the pending values in a device.
func patchOf(d *v1beta1.Device, s merge.State) (ops []operation) {
	at := map[string]int{}
	for i, p := range d.Spec.Properties {
		at[p.Name] = i
	}
	for _, name := range merge.Pending(s) {
		desired := s.Twins[name].Desired
		i, there := at[name]
		switch {
		case there:
			ops = append(ops, operation{"add", fmt.Sprintf("/spec/properties/%d/desired", i), desired})
		case len(d.Spec.Properties) == 0 && len(ops) == 0:
			ops = append(ops, operation{"add", "/spec/properties", []v1beta1.Property{{Name: name, Desired: desired}}})
		default:
			ops = append(ops, operation{"add", "/spec/properties/-", v1beta1.Property{Name: name, Desired: desired}})
		}
	}
	return ops
}
