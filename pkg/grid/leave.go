package grid

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/apis/openyurt/v1beta2"
	site "github.com/kedge-io/kedge/pkg/apis/site/v1alpha2"
	superedge "github.com/kedge-io/kedge/pkg/apis/superedge/v1"
	"github.com/kedge-io/kedge/pkg/grid/membership"
	"github.com/kedge-io/kedge/pkg/grid/placement"
	"github.com/kedge-io/kedge/pkg/kube"
)

// soon and late are how long to wait for grids to go before looking once more: first, and when they stay because somebody else's
// controllers serve the kinds.
const (
	soon = 2 * time.Second
	late = 10 * time.Minute
)

// leave removes, once, what grids made in a cluster where they were switched off: workloads and Services whose grid is gone with its kind,
// which the garbage collector of Kubernetes keeps when it meets a kind that it does not know, and the marks of units on nodes.
type leave struct {
	objects metadata.Interface
	client  kubernetes.Interface
	log     *slog.Logger
}

// newLeave prepares it; it does not connect.
func newLeave(cfg *rest.Config, log *slog.Logger) (*leave, error) {
	objects, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &leave{objects: objects, client: client, log: log}, nil
}

// run removes what is left and then waits for ctx. While grids are still there it waits for them to go.
func (l *leave) run(ctx context.Context) error {
	for pause := soon; ctx.Err() == nil; pause = min(2*pause, late) {
		waits, err := l.once(ctx)
		if err == nil && !waits {
			<-ctx.Done()
			return nil
		}
		if err != nil && ctx.Err() == nil && !kube.Unavailable(err) {
			l.log.Debug("what grids made will be removed later", "reason", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// once looks at everything that grids make. It says whether some of it still has its grid.
func (l *leave) once(ctx context.Context) (waits bool, err error) {
	for resource, label := range map[schema.GroupVersionResource]string{
		appsv1.SchemeGroupVersion.WithResource("deployments"):  placement.LabelUnit,
		appsv1.SchemeGroupVersion.WithResource("statefulsets"): placement.LabelUnit,
		corev1.SchemeGroupVersion.WithResource("services"):     superedge.LabelGrid,
	} {
		w, err := l.orphans(ctx, resource, label)
		if err != nil {
			return false, err
		}
		waits = waits || w
	}
	w, err := l.nodes(ctx)
	return waits || w, err
}

// orphans removes the objects of a kind whose grid is gone.
func (l *leave) orphans(ctx context.Context, resource schema.GroupVersionResource, label string) (waits bool, err error) {
	list, err := l.objects.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return false, fmt.Errorf("list %s: %w", resource.Resource, err)
	}
	there := map[types.UID]bool{}
	for _, o := range list.Items {
		owner := metav1.GetControllerOf(&o)
		if owner == nil || !ours(owner.APIVersion) || o.DeletionTimestamp != nil {
			continue
		}
		is, asked := there[owner.UID]
		if !asked {
			if is, err = l.exists(ctx, o.Namespace, *owner); err != nil {
				return false, err
			}
			there[owner.UID] = is
		}
		if is {
			waits = true
			continue
		}
		uid, background := o.UID, metav1.DeletePropagationBackground
		err := l.objects.Resource(resource).Namespace(o.Namespace).Delete(ctx, o.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return false, fmt.Errorf("remove %s %s: %w", resource.Resource, o.Name, err)
		}
	}
	return waits, nil
}

// ours says whether kinds of a group and version are the grid's.
func ours(apiVersion string) bool {
	group, _, _ := strings.Cut(apiVersion, "/")
	return group == superedge.Group || group == superedge.OldGroup || group == v1beta2.Group
}

// exists says whether an owner is there; one whose kind is gone is not.
func (l *leave) exists(ctx context.Context, namespace string, owner metav1.OwnerReference) (bool, error) {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return false, err
	}
	found, err := l.objects.Resource(version.WithResource(strings.ToLower(owner.Kind)+"s")).Namespace(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s %s: %w", owner.Kind, owner.Name, err)
	}
	return found.UID == owner.UID, nil
}

// nodes gives nodes back what they had before units and pools marked them, when there are no units and pools any more.
func (l *leave) nodes(ctx context.Context) (waits bool, err error) {
	all, err := l.objects.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list nodes: %w", err)
	}
	var marked []string
	for _, n := range all.Items {
		if n.Annotations[membership.AnnotationRecord] != "" {
			marked = append(marked, n.Name)
		}
	}
	if len(marked) == 0 {
		return false, nil
	}
	for _, resource := range []schema.GroupVersionResource{
		{Group: site.Group, Version: site.Version, Resource: "nodeunits"}, {Group: v1beta2.Group, Version: v1beta2.Version, Resource: "nodepools"},
	} {
		list, err := l.objects.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("list %s: %w", resource.Resource, err)
		}
		if err == nil && len(list.Items) > 0 {
			return true, nil
		}
	}
	for _, name := range marked {
		if err := l.release(ctx, name); err != nil {
			return false, err
		}
	}
	return false, nil
}

// release takes the marks off a node.
func (l *leave) release(ctx context.Context, name string) error {
	node, err := l.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	patch, err := membership.Patch(node, membership.Marks{})
	if err != nil || patch == nil {
		return err
	}
	if _, err = l.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("release node %s: %w", name, err)
	}
	return nil
}
