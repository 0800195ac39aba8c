package storage

import (
	"context"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// firstRetry and lastRetry bound the time between two attempts to serve an object that fails.
	firstRetry = 200 * time.Millisecond
	lastRetry  = time.Minute
)

// keeper holds the objects of one resource in memory and serves each after every change, and again after a failure.
type keeper[T runtime.Object] struct {
	store cache.Store
	loop  cache.Controller
	queue workqueue.TypedRateLimitingInterface[string]
	serve func(ctx context.Context, object T) (again time.Duration, err error)
}

// newKeeper prepares a keeper for the objects of a resource that match the label selector. serve returns after how long
// it wants to see the object again without a change; 0 means never. It must not change the object.
func newKeeper[T runtime.Object](client rest.Interface, resource, selector string, example T,
	serve func(context.Context, T) (time.Duration, error)) *keeper[T] {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
	k := &keeper[T]{queue: workqueue.NewTypedRateLimitingQueue(limit), serve: serve}
	add := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			k.queue.Add(key)
		}
	}
	choose := func(o *metav1.ListOptions) { o.LabelSelector = selector }
	k.store, k.loop = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(client, resource, metav1.NamespaceAll, choose),
		ObjectType:    example,
		Transform:     slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    add,
			UpdateFunc: func(_, o any) { add(o) },
		},
	})
	return k
}

// synced says whether all objects were read once.
func (k *keeper[T]) synced() bool { return k.loop.HasSynced() }

// run reads and serves objects until ctx is done.
func (k *keeper[T]) run(ctx context.Context, log *slog.Logger) {
	stop := context.AfterFunc(ctx, k.queue.ShutDown)
	defer stop()
	go k.loop.RunWithContext(ctx)
	for {
		key, end := k.queue.Get()
		if end {
			return
		}
		k.serveKey(ctx, key, log)
		k.queue.Done(key)
	}
}

func (k *keeper[T]) serveKey(ctx context.Context, key string, log *slog.Logger) {
	o, found, err := k.store.GetByKey(key)
	object, ok := o.(T)
	if err != nil || !found || !ok {
		k.queue.Forget(key)
		return
	}
	again, err := k.serve(ctx, object)
	switch {
	case err != nil && ctx.Err() == nil:
		log.Debug("storage object will be tried again", "object", key, "reason", err)
		k.queue.AddRateLimited(key)
	case again > 0:
		k.queue.AddAfter(key, again)
	default:
		k.queue.Forget(key)
	}
}
