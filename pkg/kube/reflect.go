package kube

import (
	"context"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// Times between two questions whether a kind is there, and for one.
const (
	firstLook  = 500 * time.Millisecond
	lastLook   = 15 * time.Second
	kindLookup = 10 * time.Second
)

// Source lists and watches objects of any kind: all, or those that a field selector chooses.
func Source(kind dynamic.ResourceInterface, fields string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			return kind.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			return kind.Watch(ctx, o)
		},
	}
}

// Reflect keeps a store like the objects of a kind, all or those that a field selector chooses, until ctx is done. It begins when the kind is there
// and may be read, which on the first start of a site is after the API is; a reflector would log every attempt as an error.
func Reflect(ctx context.Context, client dynamic.Interface, kind schema.GroupVersionResource, fields string, store cache.ReflectorStore) {
	resource := client.Resource(kind)
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		ask, cancel := context.WithTimeout(ctx, kindLookup)
		_, err := resource.List(ask, metav1.ListOptions{FieldSelector: fields, Limit: 1})
		cancel()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
	options := cache.ReflectorOptions{Name: "kedge-" + kind.Resource}
	cache.NewReflectorWithOptions(Source(resource, fields), &unstructured.Unstructured{}, store, options).RunWithContext(ctx)
}
