package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/kube"
)

// workers is how many requests are on their way at a time; those of one device follow each other.
const workers = 8

// outcome is what became of a report.
type outcome int

const (
	arrived outcome = iota
	useless         // nobody will ever take it
	refused         // the API would not have it now; a newer one is to be tried
	away            // the API cannot be reached
)

// deliver sends reports, each device's in order, and returns those that have to wait, and the devices to be tried again with a newer one.
func (l *Link) deliver(ctx context.Context, reports []report) (left []report, again []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, byDevice := grouped(reports)
	var mu sync.Mutex
	outcomes := parallel(keys, func(key string) (o outcome) {
		for i, r := range byDevice[key] {
			if o = l.send(ctx, r); o == away {
				cancel() // the others need not find out one by one
				mu.Lock()
				left = append(left, byDevice[key][i:]...)
				mu.Unlock()
				return away
			}
		}
		return o
	})
	for i, o := range outcomes {
		if o == refused {
			again = append(again, keys[i])
		}
	}
	slices.SortFunc(left, func(a, b report) int { return cmp.Compare(a.sequence, b.sequence) })
	return left, again
}

// grouped sorts reports by device and leaves each device's in order.
func grouped(reports []report) (keys []string, byDevice map[string][]report) {
	byDevice = map[string][]report{}
	for _, r := range reports {
		byDevice[r.Key] = append(byDevice[r.Key], r)
	}
	return slices.Sorted(maps.Keys(byDevice)), byDevice
}

func parallel[T any](items []T, do func(T) outcome) []outcome {
	out := make([]outcome, len(items))
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers)
	for i, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			out[i] = do(item)
			<-slots
		})
	}
	wg.Wait()
	return out
}

// resend sends waiting reports, each device's in order. Reports that arrived before a crash are known by their number and not sent twice.
func (l *Link) resend(ctx context.Context, reports []report) (done []uint64, reached bool, again []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, r := range reports {
		if r.Key == "" {
			done = append(done, r.sequence)
		}
	}
	keys, byDevice := grouped(slices.DeleteFunc(reports, func(r report) bool { return r.Key == "" }))
	var mu sync.Mutex
	outcomes := parallel(keys, func(key string) outcome {
		sent, o := l.resendDevice(ctx, byDevice[key])
		if o == away {
			cancel()
		}
		mu.Lock()
		defer mu.Unlock()
		done = append(done, sent...)
		return o
	})
	for i, o := range outcomes {
		if o == refused {
			again = append(again, keys[i])
		}
	}
	return done, !slices.Contains(outcomes, away), again
}

func (l *Link) resendDevice(ctx context.Context, reports []report) (done []uint64, o outcome) {
	shown, o := l.shown(ctx, reports[0])
	if o == away {
		return nil, away
	}
	for _, r := range reports {
		if newer(r.Status, shown) {
			if o = l.send(ctx, r); o == away {
				return done, away
			}
		}
		done = append(done, r.sequence)
	}
	return done, o
}

// shown is the number of the report that the API shows.
func (l *Link) shown(ctx context.Context, r report) (string, outcome) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resource, name := l.statusOf(r.Key)
	live, err := resource.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", judge(err)
	}
	shown, _, _ := unstructured.NestedString(live.Object, "status", "extensions", v1beta1.ExtensionSequence)
	return shown, arrived
}

// newer says whether a report comes after the one that is shown, as far as both were counted by the same store.
func newer(s v1beta1.Status, shown string) bool {
	mine, _ := s.Extensions[v1beta1.ExtensionSequence].(string)
	myID, myNumber, _ := strings.Cut(mine, ":")
	id, number, ok := strings.Cut(shown, ":")
	if !ok || id != myID {
		return true
	}
	a, errA := strconv.ParseUint(myNumber, 10, 64)
	b, errB := strconv.ParseUint(number, 10, 64)
	return errA != nil || errB != nil || a > b
}

func (l *Link) statusOf(key string) (dynamic.ResourceInterface, string) {
	namespace, name, _ := strings.Cut(key, "/")
	return l.cfg.Client.Resource(v1beta1.Statuses()).Namespace(namespace), name
}

// send writes one report, and makes the object for it if there is none.
func (l *Link) send(ctx context.Context, r report) outcome {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resource, name := l.statusOf(r.Key)
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1beta1.AnnotationNode: l.cfg.Hub.Node()}},
		"status":   r.Status,
	})
	if err != nil {
		return useless
	}
	_, err = resource.Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) && !kube.MissingKind(err) {
		err = l.create(ctx, resource, name, r)
	}
	if err == nil {
		l.mu.Lock()
		delete(l.refused, r.Key)
		l.mu.Unlock()
		return arrived
	}
	if _, here := l.cfg.Hub.Get(r.Key); !here && !kube.Unavailable(err) {
		return useless
	}
	o := judge(err)
	if o != away && ctx.Err() == nil {
		l.complainOnce(r.Key, err)
	}
	return o
}

// complainOnce says that the API does not take reports of a device, until it takes one.
func (l *Link) complainOnce(key string, err error) {
	l.mu.Lock()
	said := l.refused[key]
	l.refused[key] = true
	l.mu.Unlock()
	if !said {
		l.cfg.Log.Warn("report of a device was refused", "device", key, "error", err)
	}
}

func (l *Link) create(ctx context.Context, resource dynamic.ResourceInterface, name string, r report) error {
	status, err := json.Marshal(r.Status)
	if err != nil {
		return err
	}
	var content map[string]any
	if err := json.Unmarshal(status, &content); err != nil {
		return err
	}
	namespace, _, _ := strings.Cut(r.Key, "/")
	_, err = resource.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1beta1.Group + "/" + v1beta1.Version, "kind": "DeviceStatus",
		"metadata": map[string]any{
			"name": name, "namespace": namespace, "annotations": map[string]any{v1beta1.AnnotationNode: l.cfg.Hub.Node()},
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1beta1.Group + "/" + v1beta1.Version, "kind": "Device", "name": name, "uid": r.UID,
			}},
		},
		"status": content,
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create status: %w", err)
	}
	return nil
}

// judge says what an error means for the report.
func judge(err error) outcome {
	switch {
	case kube.Unavailable(err), kube.MissingKind(err):
		return away
	case apierrors.IsNotFound(err):
		return arrived // of a first report: there is nothing yet
	case apierrors.IsConflict(err), apierrors.IsForbidden(err), apierrors.IsAlreadyExists(err), apierrors.IsInternalError(err):
		return refused
	}
	return useless
}
