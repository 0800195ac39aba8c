package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/utils/clock"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/datastore"
)

// site is the apiserver's storage layer on a datastore of ours.
type site struct {
	storage.Interface
	*exchangeable
	client  *kubernetes.Client
	codec   runtime.Codec
	compact func() int64
}

// exchangeable is the transformer of values, which some tests replace.
type exchangeable struct {
	value.Transformer
	plain *storagetesting.PrefixTransformer
}

// UpdatePrefixTransformer is what the apiserver's tests call to replace the transformer for a while.
func (e *exchangeable) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	changed := *e.plain
	e.Transformer = modify(&changed)
	return func() { e.Transformer = e.plain }
}

const valuePrefix = "test!"

func newSite(t *testing.T) *site {
	t.Helper()
	d := start(t, datastore.Config{Dir: t.TempDir(), ProgressInterval: time.Second})
	client, err := kubernetes.New(clientv3.Config{
		Endpoints: []string{d.Endpoint()}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := errors.Join(example.AddToScheme(scheme), examplev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	plain := storagetesting.NewPrefixTransformer([]byte(valuePrefix), false)
	s := &site{
		exchangeable: &exchangeable{Transformer: plain, plain: plain}, client: client,
		codec: apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion),
	}
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1
	versioner := storage.APIObjectVersioner{}
	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	s.compact = compactor.CompactRevision
	store, err := etcd3.New(client, compactor, s.codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, s.exchangeable, leases,
		etcd3.NewDefaultDecoder(s.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	s.Interface = store
	return s
}

// stored checks an object as it lies in the datastore.
func (s *site) stored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	resp, err := s.client.KV.Get(ctx, key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("get %s: %v, %v", key, resp, err)
	}
	object, err := runtime.Decode(s.codec, resp.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := object.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("%s is stored with resource version %q and self link %q", key, pod.ResourceVersion, pod.SelfLink)
	}
}

func (s *site) increaseRevision(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	resp, err := s.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// compactTo compacts as the apiserver does, and awaits that its watch of the compaction has seen it.
func (s *site) compactTo(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	rev, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, s.client.Client, 0, int64(rev))
	if err != nil {
		if _, _, _, err = etcd3.Compact(ctx, s.client.Client, version, int64(rev)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); s.compact() != int64(rev); {
		if time.Now().After(deadline) {
			t.Fatalf("the apiserver knows of compaction %d, not %d", s.compact(), rev)
		}
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

type contract = func(ctx context.Context, t *testing.T, s *site)

// plain adapts a test that needs nothing but the storage.
func plain(run func(context.Context, *testing.T, storage.Interface)) contract {
	return func(ctx context.Context, t *testing.T, s *site) { run(ctx, t, s) }
}

// TestContract runs the apiserver's own storage tests. TestContractWhole has those that reach into its
// insides as well.
func TestContract(t *testing.T) {
	for name, run := range contracts() {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, newSite(t)) })
	}
}

func contracts() map[string]contract {
	all := map[string]contract{
		"Create": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestCreate(ctx, t, s, s.stored)
		},
		"GuaranteedUpdate": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, s, s.stored)
		},
		"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, s)
		},
		"TransformationFailure": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestTransformationFailure(ctx, t, s)
		},
		"List": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestList(ctx, t, s, s.compactTo, false, s.client.Kubernetes.(*storagetesting.KubernetesRecorder))
		},
		"ConsistentList": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestConsistentList(ctx, t, s, s.increaseRevision, false, true, false)
		},
		"CompactRevision": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestCompactRevision(ctx, t, s, s.increaseRevision, s.compactTo)
		},
		"GetListNonRecursive": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, s.increaseRevision, s)
		},
		"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, s, s.compactTo)
		},
		"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestListResourceVersionMatch(ctx, t, s)
		},
		"WatchFromZero": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestWatchFromZero(ctx, t, s, s.compactTo)
		},
		"WatchError": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestWatchError(ctx, t, s)
		},
		"ProgressNotify": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunOptionalTestProgressNotify(ctx, t, s, s.increaseRevision)
		},
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, s *site) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, s, false)
		},
	}
	for name, run := range plainContracts() {
		all[name] = plain(run)
	}
	if len(all) != 14+len(plainContracts()) {
		panic(fmt.Sprintf("%d tests: two have the same name", len(all)))
	}
	return all
}

func plainContracts() map[string]func(context.Context, *testing.T, storage.Interface) {
	return map[string]func(context.Context, *testing.T, storage.Interface){
		"CreateWithTTL":                          storagetesting.RunTestCreateWithTTL,
		"CreateWithKeyExist":                     storagetesting.RunTestCreateWithKeyExist,
		"Get":                                    storagetesting.RunTestGet,
		"UnconditionalDelete":                    storagetesting.RunTestUnconditionalDelete,
		"ConditionalDelete":                      storagetesting.RunTestConditionalDelete,
		"DeleteWithSuggestion":                   storagetesting.RunTestDeleteWithSuggestion,
		"DeleteWithSuggestionAndConflict":        storagetesting.RunTestDeleteWithSuggestionAndConflict,
		"DeleteWithConflict":                     storagetesting.RunTestDeleteWithConflict,
		"DeleteWithSuggestionOfDeletedObject":    storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
		"ValidateDeletionWithSuggestion":         storagetesting.RunTestValidateDeletionWithSuggestion,
		"ValidateDeletionWithOnlySuggestion":     storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
		"PreconditionalDeleteWithSuggestion":     storagetesting.RunTestPreconditionalDeleteWithSuggestion,
		"PreconditionalDeleteWithOnlySuggestion": storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"ListPaging":                             storagetesting.RunTestListPaging,
		"NamespaceScopedList":                    storagetesting.RunTestNamespaceScopedList,
		"GetListRecursivePrefix":                 storagetesting.RunTestGetListRecursivePrefix,
		"KeySchema":                              storagetesting.RunTestKeySchema,
		"GuaranteedUpdateWithTTL":                storagetesting.RunTestGuaranteedUpdateWithTTL,
		"GuaranteedUpdateWithConflict":           storagetesting.RunTestGuaranteedUpdateWithConflict,
		"GuaranteedUpdateWithSuggestion":         storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"Watch":                                  storagetesting.RunTestWatch,
		"ClusterScopedWatch":                     storagetesting.RunTestClusterScopedWatch,
		"NamespaceScopedWatch":                   storagetesting.RunTestNamespaceScopedWatch,
		"DeleteTriggerWatch":                     storagetesting.RunTestDeleteTriggerWatch,
		"WatchFromNonZero":                       storagetesting.RunTestWatchFromNonZero,
		"DelayedWatchDelivery":                   storagetesting.RunTestDelayedWatchDelivery,
		"WatchContextCancel":                     storagetesting.RunTestWatchContextCancel,
		"WatcherTimeout":                         storagetesting.RunTestWatcherTimeout,
		"WatchDeleteEventObjectHaveLatestRV":     storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
		"WatchInitializationSignal":              storagetesting.RunTestWatchInitializationSignal,
		"SendInitialEventsCompatibility":         storagetesting.RunSendInitialEventsBackwardCompatibility,
		"WatchSemantics":                         storagetesting.RunWatchSemantics,
		"WatchSemanticInitialEventsExtended":     storagetesting.RunWatchSemanticInitialEventsExtended,
		"WatchListMatchSingle":                   storagetesting.RunWatchListMatchSingle,
	}
}
