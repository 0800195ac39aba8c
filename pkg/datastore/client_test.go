package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore"
)

func newStore(t testing.TB) *clientv3.Client {
	t.Helper()
	return newClient(t, start(t, datastore.Config{Dir: t.TempDir()}).Endpoint())
}

func TestCreateUpdateDelete(t *testing.T) {
	c, ctx, key := newStore(t), t.Context(), "/registry/pods/a"
	first := mustCreate(t, c, key, "one")
	if _, err := create(ctx, c, key, "again"); err == nil {
		t.Fatal("created a key that exists")
	}
	update := func(rev int64, value string) *clientv3.TxnResponse {
		t.Helper()
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
			Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	second := update(first, "two")
	if !second.Succeeded || second.Header.Revision != first+1 {
		t.Fatalf("update: %v", second)
	}
	stale := update(first, "three")
	kv := stale.Responses[0].GetResponseRange().Kvs[0]
	if stale.Succeeded || string(kv.Value) != "two" || kv.Version != 2 || kv.CreateRevision != first || kv.ModRevision != first+1 {
		t.Fatalf("stale update: %v", stale)
	}
	remove := func(rev int64) *clientv3.TxnResponse {
		t.Helper()
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
			Then(clientv3.OpDelete(key)).Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if remove(first).Succeeded || !remove(first+1).Succeeded {
		t.Fatal("delete must compare the revision")
	}
	if gone := remove(first + 1); gone.Succeeded || len(gone.Responses[0].GetResponseRange().Kvs) != 0 {
		t.Fatalf("delete of nothing: %v", gone)
	}
	if again := mustCreate(t, c, key, "new"); again != first+3 {
		t.Fatalf("created again at %d, want %d", again, first+3)
	}
	resp, err := c.Get(ctx, key)
	if err != nil || resp.Kvs[0].Version != 1 || resp.Kvs[0].CreateRevision != first+3 {
		t.Fatalf("created again: %v, %v", resp, err)
	}
}

func TestListPagesAtOneRevision(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	for i := range 25 {
		mustCreate(t, c, fmt.Sprintf("/registry/pods/%02d", i), "x")
	}
	mustCreate(t, c, "/registry/podsother/1", "x")
	end := clientv3.GetPrefixRangeEnd("/registry/pods/")
	var seen []string
	from, rev := "/registry/pods/", int64(0)
	for page := 0; ; page++ {
		resp, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(10), clientv3.WithRev(rev))
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(25 - len(seen)); resp.Count != want {
			t.Fatalf("page %d counts %d, want %d", page, resp.Count, want)
		}
		for _, kv := range resp.Kvs {
			seen = append(seen, string(kv.Key))
		}
		if page == 0 { // changes after the first page must not show
			rev = resp.Header.Revision
			if _, err := c.Delete(ctx, "/registry/pods/20"); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, c, "/registry/pods/205", "x")
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	if len(seen) != 25 || seen[20] != "/registry/pods/20" {
		t.Fatalf("%d keys: %v", len(seen), seen)
	}
	count, err := c.Get(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || count.Count != 25 || len(count.Kvs) != 0 {
		t.Fatalf("count: %v, %v", count, err)
	}
}

func TestCompaction(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	rev := mustCreate(t, c, "/a", "1")
	for i := range 5 {
		if _, err := c.Put(ctx, "/a", fmt.Sprint(i+2)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Compact(ctx, rev+2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, rev+1); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatalf("second compaction: %v", err)
	}
	if _, err := c.Compact(ctx, rev+100); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Fatalf("compaction of the future: %v", err)
	}
	if _, err := c.Get(ctx, "/a", clientv3.WithRev(rev+1)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatalf("read of a compacted revision: %v", err)
	}
	if _, err := c.Get(ctx, "/a", clientv3.WithRev(rev+100)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Fatalf("read of the future: %v", err)
	}
	resp, err := c.Get(ctx, "/a", clientv3.WithRev(rev+2))
	if err != nil || string(resp.Kvs[0].Value) != "3" {
		t.Fatalf("read at the compacted revision: %v, %v", resp, err)
	}
	late := <-c.Watch(ctx, "/a", clientv3.WithRev(rev+1))
	if late.CompactRevision != rev+2 || !errors.Is(late.Err(), rpctypes.ErrCompacted) {
		t.Fatalf("watch of a compacted revision: %+v", late)
	}
}

// TestCompactRevKey runs the transactions with which apiservers agree on who compacts.
func TestCompactRevKey(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	swap := func(version int64, value string) (bool, int64) {
		t.Helper()
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("compact_rev_key"), "=", version)).
			Then(clientv3.OpPut("compact_rev_key", value)).Else(clientv3.OpGet("compact_rev_key")).Commit()
		if err != nil {
			t.Fatal(err)
		}
		if resp.Succeeded {
			return true, 0
		}
		return false, resp.Responses[0].GetResponseRange().Kvs[0].Version
	}
	if ok, _ := swap(0, "1"); !ok {
		t.Fatal("the first must win")
	}
	if ok, version := swap(0, "2"); ok || version != 1 {
		t.Fatalf("a late one must lose and learn version 1, got %v %d", ok, version)
	}
	if ok, _ := swap(1, "3"); !ok {
		t.Fatal("the next must win")
	}
}

func TestLeaseEndsKey(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	lease, err := c.Grant(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	events := c.Watch(ctx, "/lease", clientv3.WithPrevKV())
	if _, err := c.Put(ctx, "/lease", "x", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PUT", "DELETE"} {
		if e := awaitEvents(t, events, 1)[0]; e.Type.String() != want {
			t.Fatalf("%v, want %s", e, want)
		}
	}
}

// awaitEvents reads n events from a watch.
func awaitEvents(t testing.TB, events clientv3.WatchChan, n int) []*clientv3.Event {
	t.Helper()
	var got []*clientv3.Event
	timeout := time.After(20 * time.Second)
	for len(got) < n {
		select {
		case resp := <-events:
			if err := resp.Err(); err != nil {
				t.Fatalf("watch: %v", err)
			}
			got = append(got, resp.Events...)
		case <-timeout:
			t.Fatalf("got %d of %d events", len(got), n)
		}
	}
	return got
}

func TestTransactionOfManyOperations(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	mustCreate(t, c, "/m/1", "one")
	mustCreate(t, c, "/m/2", "two")
	resp, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("/m/1"), "=", "one"), clientv3.Compare(clientv3.CreateRevision("/m/3"), "=", 0)).
		Then(clientv3.OpPut("/m/3", "three"), clientv3.OpDelete("/m/1", clientv3.WithPrevKV()),
			clientv3.OpGet("/m/", clientv3.WithPrefix()), clientv3.OpPut("/m/2", "TWO", clientv3.WithPrevKV())).Commit()
	if err != nil || !resp.Succeeded {
		t.Fatalf("%v, %v", resp, err)
	}
	if prev := resp.Responses[1].GetResponseDeleteRange().PrevKvs; len(prev) != 1 || string(prev[0].Value) != "one" {
		t.Errorf("deleted %v", prev)
	}
	if kvs := resp.Responses[2].GetResponseRange().Kvs; len(kvs) != 2 || string(kvs[0].Value) != "two" || string(kvs[1].Value) != "three" {
		t.Errorf("seen within the transaction: %v", kvs)
	}
	if prev := resp.Responses[3].GetResponsePut().PrevKv; string(prev.Value) != "two" {
		t.Errorf("replaced %v", prev)
	}
	failed, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("/m/9"), "=", "")).Then(clientv3.OpPut("/m/9", "x")).Commit()
	if err != nil || failed.Succeeded {
		t.Errorf("the value of a missing key must not compare: %v, %v", failed, err)
	}
	deleted, err := c.Delete(ctx, "/m/", clientv3.WithPrefix())
	if err != nil || deleted.Deleted != 2 {
		t.Errorf("deleted %v, %v", deleted, err)
	}
}

func TestRefusals(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	put := func(key, value string) error { _, err := c.Put(ctx, key, value); return err }
	if err := put("", "x"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("empty key: %v", err)
	}
	if err := put("/big", string(make([]byte, 1600<<10))); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := put("/big", string(make([]byte, 1500<<10))); err != nil {
		t.Errorf("just small enough: %v", err)
	}
	_, err := c.Txn(ctx).Then(clientv3.OpPut("/twice", "1"), clientv3.OpPut("/twice", "2")).Commit()
	if !errors.Is(err, rpctypes.ErrDuplicateKey) {
		t.Errorf("twice the same key: %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Get(short, "/"); err == nil {
		t.Error("a request whose context is over must fail")
	}
	status, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil || status.Version != "3.6.13" || status.DbSize == 0 {
		t.Errorf("status %v, %v", status, err)
	}
}

func TestSortedAndFiltered(t *testing.T) {
	c, ctx := newStore(t), t.Context()
	for _, k := range []string{"b", "c", "a"} {
		mustCreate(t, c, "/s/"+k, k)
	}
	last, err := c.Get(ctx, "/s/", clientv3.WithLastRev()...)
	if err != nil || len(last.Kvs) != 1 || string(last.Kvs[0].Key) != "/s/a" || !last.More {
		t.Errorf("last written: %v, %v", last, err)
	}
	down, err := c.Get(ctx, "/s/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil || string(down.Kvs[0].Key) != "/s/c" {
		t.Errorf("descending: %v, %v", down, err)
	}
	from, err := c.Get(ctx, "/s/b", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil || from.Count != 2 || from.Kvs[0].Value != nil {
		t.Errorf("from key: %v, %v", from, err)
	}
	young, err := c.Get(ctx, "/s/", clientv3.WithPrefix(), clientv3.WithMinModRev(last.Kvs[0].ModRevision))
	if err != nil || len(young.Kvs) != 1 {
		t.Errorf("filtered: %v, %v", young, err)
	}
}
