package controller

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/tools/cache"

	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/dialect"
	"github.com/kedge-io/kedge/pkg/grid/object"
)

// syncService brings the Service of a ServiceGrid in line.
func (e *Engine) syncService(ctx context.Context, k key) error {
	obj := e.object(k.kind, k.namespace, k.name)
	if obj == nil || obj.GetDeletionTimestamp() != nil {
		return nil
	}
	wanted, err := dialect.Service(obj)
	if err != nil {
		return e.serviceStatus(ctx, k, nil, "", err)
	}
	live := e.service(k.namespace, wanted.GetName())
	if live != nil && metav1.IsControlledBy(live, obj) {
		seen := content(live)
		seen["apiVersion"], seen["kind"] = "v1", "Service"
		if containsJSON(seen, wanted.Object) {
			return e.serviceStatus(ctx, k, live, wanted.GetName(), nil)
		}
	}
	services := e.kinds.Resource(resourceOf(kindService(), "v1")).Namespace(k.namespace)
	written, err := object.Ensure(ctx, services, wanted, obj.GetUID(), live == nil)
	if err != nil {
		if object.Final(err) {
			e.events.Event(obj, corev1.EventTypeWarning, "ServiceFailed", err.Error())
			return e.serviceStatus(ctx, k, nil, wanted.GetName(), err)
		}
		return fmt.Errorf("write service: %w", err)
	}
	if live == nil {
		e.events.Event(obj, corev1.EventTypeNormal, "Created", "created Service "+written.GetName())
	}
	var now corev1.Service
	if data, err := json.Marshal(written); err != nil || json.Unmarshal(data, &now) != nil {
		return nil
	}
	return e.serviceStatus(ctx, k, &now, wanted.GetName(), nil)
}

// containsJSON is contains for content that came through Go types on one side: numbers are compared as JSON writes them.
func containsJSON(live, wanted map[string]any) bool {
	var clean map[string]any
	data, err := json.Marshal(wanted)
	return err == nil && kjson.Unmarshal(data, &clean) == nil && object.Contains(live, clean)
}

// service returns what is known of a Service, or nil.
func (e *Engine) service(namespace, name string) *corev1.Service {
	store := e.store(kindService())
	if store == nil {
		return nil
	}
	o, _, _ := store.GetByKey(cache.NewObjectName(namespace, name).String())
	s, _ := o.(*corev1.Service)
	return s
}

// serviceStatus writes the status of a ServiceGrid: that of its Service, and whether it is there.
func (e *Engine) serviceStatus(ctx context.Context, k key, live *corev1.Service, name string, problem error) error {
	obj := e.object(k.kind, k.namespace, k.name)
	if obj == nil {
		return nil
	}
	status := map[string]any{"observedGeneration": obj.GetGeneration()}
	if name != "" {
		status["service"] = name
	}
	ready := object.Condition("Ready", true, "ServiceCreated", "traffic stays between nodes with the same value of the key", obj.GetGeneration())
	switch {
	case problem != nil:
		ready = object.Condition("Ready", false, "ServiceFailed", problem.Error(), obj.GetGeneration())
	case live != nil:
		status["loadBalancer"] = content(live.Status.LoadBalancer)
	}
	status["conditions"] = []any{ready}
	_, err := e.writeStatus(ctx, k, nil, status)
	return err
}

// syncNames tells nodes, in an annotation of a Service, which StatefulSetGrids stand behind it.
func (e *Engine) syncNames(ctx context.Context, k key) error {
	live := e.service(k.namespace, k.name)
	if live == nil || live.DeletionTimestamp != nil {
		return nil
	}
	grids := e.objects(schema.GroupKind{Group: superedge.Group, Kind: superedge.KindStatefulSetGrid})
	wanted, has := dialect.Names(grids, k.namespace, k.name), live.Annotations[dialect.AnnotationNames]
	if wanted == has {
		return nil
	}
	value := any(wanted)
	if wanted == "" {
		value = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": live.ResourceVersion, "annotations": map[string]any{dialect.AnnotationNames: value},
	}})
	if err != nil {
		return err
	}
	_, err = e.client.CoreV1().Services(k.namespace).Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: object.Manager})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the change that made it so asks again
	}
	return err
}
