package metrics

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

func nodeMetrics(node *corev1.Node, p point) metricsv1beta1.NodeMetrics {
	return metricsv1beta1.NodeMetrics{
		TypeMeta:   metav1.TypeMeta{APIVersion: Group + "/" + Version, Kind: "NodeMetrics"},
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.NewTime(p.at)},
		Timestamp:  metav1.NewTime(p.at), Window: metav1.Duration{Duration: window}, Usage: resources(p),
	}
}

// podMetrics says nothing about a pod whose running containers were not all measured: half a sum would mislead an autoscaler.
func podMetrics(pod *corev1.Pod, s *sample) (metricsv1beta1.PodMetrics, bool) {
	measured := s.pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
	for _, c := range pod.Status.ContainerStatuses {
		if _, ok := measured[c.Name]; !ok && c.State.Running != nil {
			return metricsv1beta1.PodMetrics{}, false
		}
	}
	if len(measured) == 0 {
		return metricsv1beta1.PodMetrics{}, false
	}
	oldest := time.Time{}
	m := metricsv1beta1.PodMetrics{Window: metav1.Duration{Duration: window}}
	for name, p := range measured {
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: resources(p)})
		if oldest.IsZero() || p.at.Before(oldest) {
			oldest = p.at
		}
	}
	slices.SortFunc(m.Containers, func(x, y metricsv1beta1.ContainerMetrics) int { return cmp.Compare(x.Name, y.Name) })
	m.TypeMeta = metav1.TypeMeta{APIVersion: Group + "/" + Version, Kind: "PodMetrics"}
	m.ObjectMeta = metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, CreationTimestamp: metav1.NewTime(oldest)}
	m.Timestamp = metav1.NewTime(oldest)
	return m, true
}

func resources(p point) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(clamp(p.cpu), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(clamp(p.memory), resource.BinarySI),
	}
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// table is what kubectl get shows of nodes and pods of this API.
func table(obj runtime.Object) *metav1.Table {
	t := &metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name"}, {Name: "CPU", Type: "string"}, {Name: "Memory", Type: "string"}, {Name: "Window", Type: "string"},
		},
	}
	row := func(object metav1.ObjectMeta, w metav1.Duration, usage ...corev1.ResourceList) {
		cpu, memory := resource.Quantity{}, resource.Quantity{Format: resource.BinarySI}
		for _, u := range usage {
			cpu.Add(u[corev1.ResourceCPU])
			memory.Add(u[corev1.ResourceMemory])
		}
		meta := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: object}
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells: []any{object.Name, cpu.String(), memory.String(), w.Duration.String()}, Object: runtime.RawExtension{Object: meta},
		})
	}
	switch o := obj.(type) {
	case *metricsv1beta1.NodeMetrics:
		row(o.ObjectMeta, o.Window, o.Usage)
	case *metricsv1beta1.NodeMetricsList:
		for i := range o.Items {
			row(o.Items[i].ObjectMeta, o.Items[i].Window, o.Items[i].Usage)
		}
	case *metricsv1beta1.PodMetrics:
		row(o.ObjectMeta, o.Window, usages(o)...)
	case *metricsv1beta1.PodMetricsList:
		for i := range o.Items {
			row(o.Items[i].ObjectMeta, o.Items[i].Window, usages(&o.Items[i])...)
		}
	}
	return t
}

func usages(pod *metricsv1beta1.PodMetrics) []corev1.ResourceList {
	var out []corev1.ResourceList
	for _, c := range pod.Containers {
		out = append(out, c.Usage)
	}
	return out
}

// wantsTable says whether a client asks for rows to print before it asks for objects.
func wantsTable(accept string) bool {
	first, _, _ := strings.Cut(accept, ",")
	return strings.Contains(first, ";as=Table;v=v1;")
}
