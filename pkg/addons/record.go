package addons

import (
	"cmp"
	"context"
	"fmt"
	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"reflect"
	"slices"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// fieldManager owns the fields that manifests set; it must never change.
	fieldManager = "kedge-addons"
	// maxMessage is what an Event may carry.
	maxMessage = 1000
)

// outcome is what became of one file in a pass.
type outcome struct {
	reason  string
	message string
	objects []kube.Ref // what may be in the cluster now
	full    bool       // all of the file was applied
}

// newRecord makes the AddOn that tells of the outcome.
func newRecord(s step, f file, o outcome, server string, now time.Time) *v1alpha1.AddOn {
	r := &v1alpha1.AddOn{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Spec:       v1alpha1.AddOnSpec{Source: s.rel, Server: server, Packaged: f.packaged},
	}
	if s.record != nil {
		r.Status.Checksum = s.record.Status.Checksum
		r.Status.Conditions = slices.Clone(s.record.Status.Conditions)
	}
	if o.full {
		r.Status.Checksum = f.checksum
	}
	kinds := map[string]bool{}
	for _, ref := range o.objects {
		r.Status.Objects = append(r.Status.Objects, v1alpha1.ObjectRef(ref))
		kinds[ref.APIVersion+"/"+ref.Kind] = true
	}
	for kind := range kinds {
		r.Status.Kinds = append(r.Status.Kinds, kind)
	}
	slices.Sort(r.Status.Kinds)
	status := metav1.ConditionFalse
	switch o.reason {
	case v1alpha1.ReasonApplied:
		status = metav1.ConditionTrue
	case v1alpha1.ReasonSkipped:
		status = metav1.ConditionUnknown
	}
	meta.SetStatusCondition(&r.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: o.reason, Message: shorten(o.message),
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
	return r
}

// union lists the recorded objects and the wanted ones, each once.
func union(record *v1alpha1.AddOn, wanted []kube.Ref) []kube.Ref {
	var out []kube.Ref
	seen := map[string]bool{}
	add := func(ref kube.Ref) {
		if !seen[manifest.Identity(ref)] {
			seen[manifest.Identity(ref)] = true
			out = append(out, ref)
		}
	}
	for _, ref := range wanted {
		add(ref)
	}
	for _, ref := range recorded(record) {
		add(ref)
	}
	return out
}

func recorded(record *v1alpha1.AddOn) []kube.Ref {
	if record == nil {
		return nil
	}
	var out []kube.Ref
	for _, ref := range record.Status.Objects {
		out = append(out, kube.Ref(ref))
	}
	return out
}

func sameRecord(a, b *v1alpha1.AddOn) bool {
	return a != nil && b != nil && a.Spec == b.Spec && reflect.DeepEqual(a.Status, b.Status)
}

func readyCondition(record *v1alpha1.AddOn) metav1.Condition {
	if record == nil {
		return metav1.Condition{}
	}
	if c := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return text[:maxMessage] + "…"
}

// listRecords reads all AddOns.
func listRecords(ctx context.Context, client *kube.Client) ([]v1alpha1.AddOn, error) {
	list, err := client.Dynamic.Resource(v1alpha1.GroupVersionResource()).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	records := make([]v1alpha1.AddOn, len(list.Items))
	for i := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &records[i]); err != nil {
			return nil, fmt.Errorf("record %s: %w", list.Items[i].GetName(), err)
		}
	}
	return records, nil
}

// store writes the record if it says anything new, and notes its UID.
func store(ctx context.Context, client *kube.Client, record, old *v1alpha1.AddOn) error {
	if sameRecord(record, old) {
		record.UID = old.UID
		return nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(record)
	if err != nil {
		return err
	}
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	live, err := client.Apply(ctx, &unstructured.Unstructured{Object: content}, kube.ApplyOptions{Manager: fieldManager})
	if err != nil {
		return err
	}
	record.UID = live.GetUID()
	return nil
}

func deleteRecord(ctx context.Context, client *kube.Client, name string) error {
	err := client.Dynamic.Resource(v1alpha1.GroupVersionResource()).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// announce writes an Event about an AddOn. Events are for people: one that cannot be written is not an error.
func announce(ctx context.Context, client *kube.Client, about *v1alpha1.AddOn, reason, message string, good bool, now time.Time) {
	kind := corev1.EventTypeWarning
	if good {
		kind = corev1.EventTypeNormal
	}
	at := metav1.NewTime(now)
	event := &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", about.Name, now.UnixNano()), Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.Kind, Name: about.Name, UID: about.UID},
		Reason:         cmp.Or(reason, "Unknown"),
		Message:        shorten(message),
		Type:           kind,
		Source:         corev1.EventSource{Component: fieldManager},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(event)
	if err != nil {
		return
	}
	events := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	_, _ = client.Dynamic.Resource(events).Namespace(event.Namespace).Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
}
