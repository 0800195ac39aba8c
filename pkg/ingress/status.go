package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kedge-io/kedge/pkg/ingress/route"
)

// retry is the time until a status is written again that could not be.
const retry = 2 * time.Second

// publish writes every status that differs from what it should be.
func (c *Controller) publish(ctx context.Context, w *route.World, o *route.Outcome) error {
	var errs []error
	for _, i := range o.Ingresses {
		errs = append(errs, c.publishIngress(ctx, i, w.Addresses))
	}
	for _, class := range o.GatewayClasses {
		accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", ObservedGeneration: class.Generation}
		want := gatewayv1.GatewayClassStatus{Conditions: merge(class.Status.Conditions, []metav1.Condition{accepted})}
		if !apiequality.Semantic.DeepEqual(class.Status.Conditions, want.Conditions) {
			errs = append(errs, c.patch(ctx, gatewayClassKind(), class, map[string]any{"conditions": want.Conditions}))
		}
	}
	for _, g := range w.Gateways {
		if want := o.Gateways[g.Namespace+"/"+g.Name]; want != nil {
			errs = append(errs, c.publishGateway(ctx, g, want))
		}
	}
	for _, r := range w.Routes {
		errs = append(errs, c.publishRoute(ctx, r, o.Routes[r.Namespace+"/"+r.Name]))
	}
	return errors.Join(errs...)
}

func (c *Controller) publishIngress(ctx context.Context, i *networkingv1.Ingress, addresses []string) error {
	want := make([]networkingv1.IngressLoadBalancerIngress, 0, len(addresses))
	for _, a := range addresses {
		if net.ParseIP(a) != nil {
			want = append(want, networkingv1.IngressLoadBalancerIngress{IP: a})
		}
	}
	if apiequality.Semantic.DeepEqual(i.Status.LoadBalancer.Ingress, want) {
		return nil
	}
	return c.patch(ctx, networkingv1.SchemeGroupVersion.WithResource(ingresses), i, map[string]any{"loadBalancer": map[string]any{"ingress": want}})
}

func (c *Controller) publishGateway(ctx context.Context, g *gatewayv1.Gateway, want *gatewayv1.GatewayStatus) error {
	want.Conditions = merge(g.Status.Conditions, want.Conditions)
	for i := range want.Listeners {
		for _, old := range g.Status.Listeners {
			if old.Name == want.Listeners[i].Name {
				want.Listeners[i].Conditions = merge(old.Conditions, want.Listeners[i].Conditions)
			}
		}
		want.Listeners[i].Conditions = merge(nil, want.Listeners[i].Conditions)
	}
	if apiequality.Semantic.DeepEqual(g.Status.Conditions, want.Conditions) && apiequality.Semantic.DeepEqual(g.Status.Listeners, want.Listeners) &&
		apiequality.Semantic.DeepEqual(g.Status.Addresses, want.Addresses) {
		return nil
	}
	return c.patch(ctx, gatewayKind(), g, map[string]any{"addresses": want.Addresses, "conditions": want.Conditions, "listeners": want.Listeners})
}

// publishRoute writes our part of a route's status: those of other controllers stay.
func (c *Controller) publishRoute(ctx context.Context, r *gatewayv1.HTTPRoute, want []gatewayv1.RouteParentStatus) error {
	parents := []gatewayv1.RouteParentStatus{}
	for _, p := range r.Status.Parents {
		if p.ControllerName != route.GatewayController {
			parents = append(parents, p)
		}
	}
	for _, p := range want {
		for _, old := range r.Status.Parents {
			if old.ControllerName == p.ControllerName && apiequality.Semantic.DeepEqual(old.ParentRef, p.ParentRef) {
				p.Conditions = merge(old.Conditions, p.Conditions)
			}
		}
		p.Conditions = merge(nil, p.Conditions)
		parents = append(parents, p)
	}
	if apiequality.Semantic.DeepEqual(r.Status.Parents, parents) || len(r.Status.Parents) == 0 && len(parents) == 0 {
		return nil
	}
	return c.patch(ctx, routeKind(), r, map[string]any{"parents": parents})
}

// merge gives conditions their times: those of before where nothing but the generation has changed, now elsewhere.
func merge(old, want []metav1.Condition) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(want))
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	for _, one := range want {
		if before := meta.FindStatusCondition(old, one.Type); before != nil && before.Status == one.Status {
			one.LastTransitionTime = before.LastTransitionTime
		}
		if one.LastTransitionTime.IsZero() {
			one.LastTransitionTime = now
		}
		out = append(out, one)
	}
	return out
}

func (c *Controller) patch(ctx context.Context, kind schema.GroupVersionResource, o metav1.Object, status map[string]any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()}, "status": status})
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(kind).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.MergePatchType, data, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the change that made it so wakes us again
	}
	if err != nil {
		return fmt.Errorf("write status of %s %s/%s: %w", kind.Resource, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}
