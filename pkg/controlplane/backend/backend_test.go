package backend

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

// The storage itself is tested by every scenario under test/e2e: nothing else keeps a site's objects.

func etcdOptions() *options.EtcdOptions {
	return options.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", nil))
}

func TestWhichResourcesHaveACache(t *testing.T) {
	pods, events := schema.GroupResource{Resource: "pods"}, schema.GroupResource{Resource: "events"}
	o := etcdOptions()
	o.WatchCacheSizes = []string{"events#0", "pods#100"}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if !b.cached(pods) || b.cached(events) || !b.cached(schema.GroupResource{Group: "example.com", Resource: "boats"}) {
		t.Error("want a cache for all but events")
	}
	o.EnableWatchCache = false
	if b, err = New(o); err != nil || b.cached(pods) {
		t.Errorf("a cache where all are switched off, %v", err)
	}
	o.WatchCacheSizes = []string{"pods"}
	if _, err := New(o); err == nil {
		t.Error("a size without a number was accepted")
	}
}

func TestUpstreamCompactsNothing(t *testing.T) {
	o := etcdOptions()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	config := o.StorageConfig.ForResource(schema.GroupResource{Resource: "pods"})
	got, err := b.Share(fixed{config}).GetRESTOptions(config.GroupResource, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.StorageConfig.CompactionInterval != 0 || got.StorageConfig.DBMetricPollInterval != 0 || config.CompactionInterval == 0 {
		t.Error("storage that upstream makes beside ours would end the compaction when it ends")
	}
	if b.compaction != config.CompactionInterval || got.Decorator == nil {
		t.Error("nothing compacts")
	}
}

// fixed configures all resources alike.
type fixed struct {
	config *storagebackend.ConfigForResource
}

func (f fixed) GetRESTOptions(schema.GroupResource, runtime.Object) (generic.RESTOptions, error) {
	return generic.RESTOptions{StorageConfig: f.config}, nil
}
