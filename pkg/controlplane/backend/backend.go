// Package backend gives all resources of the API server one connection to the datastore. Upstream makes one for each resource, close to a
// hundred, with a dozen goroutines each, buffers, and a ping each 30 s. Watches keep streams of their own. Only controlplane imports it.
package backend

import (
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
)

// Backend holds the connections; it makes them when the first resource needs one.
type Backend struct {
	compaction, size time.Duration
	caches           bool
	// sizes has 0 for resources without a cache of watches.
	sizes map[schema.GroupResource]int

	mu     sync.Mutex
	shared map[string]*connection // by servers and files of the transport
}

// New makes a Backend without connections, for the resources of a server that was given these options.
func New(o *options.EtcdOptions) (*Backend, error) {
	sizes, err := options.ParseWatchCacheSizes(o.WatchCacheSizes)
	if err != nil {
		return nil, fmt.Errorf("read sizes of caches: %w", err)
	}
	return &Backend{
		compaction: o.StorageConfig.CompactionInterval, size: o.StorageConfig.DBMetricPollInterval,
		caches: o.EnableWatchCache, sizes: sizes, shared: map[string]*connection{},
	}, nil
}

// Share has the resources that in configures use b's connections.
func (b *Backend) Share(in generic.RESTOptionsGetter) generic.RESTOptionsGetter { return getter{b, in} }

// cached says whether a resource has a cache of watches.
func (b *Backend) cached(resource schema.GroupResource) bool {
	size, known := b.sizes[resource]
	return b.caches && (!known || size > 0)
}

// Close ends the connections. The resources must not be used any more.
func (b *Backend) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, c := range b.shared {
		c.close()
		delete(b.shared, name)
	}
}

type getter struct {
	backend *Backend
	next    generic.RESTOptionsGetter
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (g getter) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := g.next.GetRESTOptions(resource, example)
	if err != nil || o.StorageConfig.Transport.EgressLookup != nil { // upstream knows how to go that way
		return o, err
	}
	// What upstream runs once for all storage, a Backend runs. Upstream's would end with the last storage that upstream makes.
	config := *o.StorageConfig
	config.CompactionInterval, config.DBMetricPollInterval = 0, 0
	o.StorageConfig = &config
	o.Decorator = g.backend.decorator(g.backend.cached(resource))
	return o, nil
}

// decorator makes the storage of a resource as upstream's generic.UndecoratedStorage or registry.StorageWithCacher do.
func (b *Backend) decorator(cached bool) generic.StorageDecorator {
	return func(config *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
		attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		raw, destroy, err := b.raw(config, prefix, newFunc, newListFunc)
		if err != nil || !cached {
			return raw, destroy, err
		}
		c, err := cacher.NewCacherFromConfig(cacher.Config{
			Storage: raw, Versioner: storage.APIObjectVersioner{}, GroupResource: config.GroupResource, EventsHistoryWindow: config.EventsHistoryWindow,
			ResourcePrefix: prefix, KeyFunc: keyFunc, NewFunc: newFunc, NewListFunc: newListFunc, GetAttrsFunc: attributes,
			IndexerFuncs: triggers, Indexers: indexers, Codec: config.Codec,
		})
		if err != nil {
			destroy()
			return nil, func() {}, fmt.Errorf("make cache of %s: %w", config.GroupResource, err)
		}
		delegator := cacher.NewCacheDelegator(c, raw)
		return delegator, sync.OnceFunc(func() {
			delegator.Stop()
			c.Stop()
			destroy()
		}), nil
	}
}

// raw is the datastore as the storage of a resource, see newETCD3Storage in upstream's storagebackend/factory.
func (b *Backend) raw(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object) (storage.Interface, factory.DestroyFunc, error) {
	none := func() {}
	shared, err := b.connection(config.Transport)
	if err != nil {
		return nil, none, err
	}
	client := resourceClient(shared.client)
	transformer := config.Transformer
	if transformer == nil {
		transformer = identity.NewEncryptCheckTransformer()
	}
	versioner := storage.APIObjectVersioner{}
	decoder := etcd3.NewDefaultDecoder(config.Codec, versioner)
	deletesCorrupt := utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
	if deletesCorrupt {
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	store, err := etcd3.New(client, shared.compactor, config.Codec, newFunc, newListFunc, config.Prefix, prefix, config.GroupResource, transformer,
		config.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		return nil, none, errors.Join(fmt.Errorf("make storage of %s: %w", config.GroupResource, err), client.Close())
	}
	destroy := sync.OnceFunc(func() {
		store.Close()
		_ = client.Close() // says that its context has ended
	})
	if deletesCorrupt {
		return etcd3.NewStoreWithUnsafeCorruptObjectDeletion(store, config.GroupResource), destroy, nil
	}
	return store, destroy, nil
}

// resourceClient has streams of its own for watches on the connection of shared: progress is told to all watches of a stream.
func resourceClient(shared *clientv3.Client) *kubernetes.Client {
	own := clientv3.NewCtxClient(shared.Ctx())
	own.KV = etcd3.NewETCDLatencyTracker(clientv3.NewKV(shared))
	own.Watcher = clientv3.NewWatcher(shared)
	own.Lease = clientv3.NewLease(shared)
	own.Maintenance = clientv3.NewMaintenance(shared)
	client := &kubernetes.Client{Client: own}
	client.Kubernetes = client
	return client
}
