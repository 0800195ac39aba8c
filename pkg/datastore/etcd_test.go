package datastore_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestSameAsEtcd sends the same random requests to an etcd and to a datastore of ours and compares every
// answer, and at the end what watches from random revisions saw. Transactions write at most one key, because
// each further write has a revision of its own with us.
//
// The seeds are the same in each run, so that a change is to blame when it fails; -etcd-seeds adds random ones.
func TestSameAsEtcd(t *testing.T) {
	const emptyRange = 13647680436968249506 // compares a range without keys
	seeds := []uint64{1, emptyRange}
	for range *etcdSeeds {
		seeds = append(seeds, rand.Uint64())
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { sameAsEtcd(t, seed) })
	}
}

var etcdSeeds = flag.Int("etcd-seeds", 0, "random runs of TestSameAsEtcd")

func sameAsEtcd(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	etcd, ours := newClient(t, startEtcd(t)), newStore(t)
	g := &requests{rnd: rnd, rev: 1, compacted: 0}
	for i := range 3000 {
		op, name := g.next()
		want, got := answer(t, etcd, op), answer(t, ours, op)
		if want != got {
			t.Fatalf("request %d, %s:\netcd %s\nours %s", i, name, want, got)
		}
		resp, err := etcd.Get(t.Context(), "/none", clientv3.WithSerializable())
		if err != nil {
			t.Fatal(err)
		}
		g.rev = resp.Header.Revision
		if i%500 == 499 {
			g.compacted = g.compacted + 1 + rnd.Int64N(g.rev-g.compacted)
			for _, c := range []*clientv3.Client{etcd, ours} {
				if _, err := c.Compact(t.Context(), g.compacted); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for range 20 {
		// events of the compacted revision itself may or may not have their previous value
		from := g.compacted + 1 + rnd.Int64N(g.rev-g.compacted)
		key, opts := g.span()
		if end := string(clientv3.OpGet(key, opts...).RangeBytes()); end != "" && end != "\x00" && end <= key {
			continue // a watch of nothing is refused
		}
		opts = append(opts, clientv3.WithRev(from), clientv3.WithPrevKV())
		want, got := history(t, etcd, key, opts, g.rev), history(t, ours, key, opts, g.rev)
		if want != got {
			t.Fatalf("watch of %s from %d to %d:\netcd %s\nours %s", key, from, g.rev, want, got)
		}
	}
}

// requests makes random requests on a few keys.
type requests struct {
	rnd            *rand.Rand
	rev, compacted int64
	n              int
}

func (g *requests) key() string { return fmt.Sprintf("/k/%c", 'a'+g.rnd.IntN(8)) }

func (g *requests) value() string {
	g.n++
	return fmt.Sprint("value", g.n)
}

// span is a key and an option that makes it one key, a prefix, a range or everything after it.
func (g *requests) span() (string, []clientv3.OpOption) {
	switch g.rnd.IntN(4) {
	case 0:
		return "/k/", []clientv3.OpOption{clientv3.WithPrefix()}
	case 1:
		return g.key(), []clientv3.OpOption{clientv3.WithRange(fmt.Sprintf("/k/%c", 'b'+g.rnd.IntN(8)))}
	case 2:
		return g.key(), []clientv3.OpOption{clientv3.WithFromKey()}
	}
	return g.key(), nil
}

func (g *requests) get() clientv3.Op {
	key, opts := g.span()
	if g.rnd.IntN(2) == 0 { // around what exists, also compacted and future ones
		opts = append(opts, clientv3.WithRev(max(0, g.compacted-2+g.rnd.Int64N(g.rev-g.compacted+5))))
	}
	if g.rnd.IntN(2) == 0 {
		opts = append(opts, clientv3.WithLimit(g.rnd.Int64N(5)))
	}
	switch g.rnd.IntN(6) {
	case 0:
		opts = append(opts, clientv3.WithCountOnly())
	case 1:
		opts = append(opts, clientv3.WithKeysOnly())
	case 2:
		// not by version, where etcd leaves the order of equal ones open, and always with a direction,
		// without which etcd cuts before it sorts
		target := []clientv3.SortTarget{clientv3.SortByKey, clientv3.SortByCreateRevision, clientv3.SortByModRevision, clientv3.SortByValue}
		opts = append(opts, clientv3.WithSort(target[g.rnd.IntN(4)], clientv3.SortOrder(1+g.rnd.IntN(2))), clientv3.WithLimit(g.rnd.Int64N(5)))
	case 3:
		opts = append(opts, clientv3.WithMinModRev(g.rnd.Int64N(g.rev+1)), clientv3.WithMaxCreateRev(g.rnd.Int64N(g.rev+1)))
	}
	return clientv3.OpGet(key, opts...)
}

func (g *requests) write() clientv3.Op {
	var opts []clientv3.OpOption
	if g.rnd.IntN(2) == 0 {
		opts = append(opts, clientv3.WithPrevKV())
	}
	switch g.rnd.IntN(8) {
	case 0, 1:
		return clientv3.OpDelete(g.key(), opts...)
	case 2:
		return clientv3.OpPut(g.key(), "", append(opts, clientv3.WithIgnoreValue())...)
	}
	return clientv3.OpPut(g.key(), g.value(), opts...)
}

func (g *requests) compare() clientv3.Cmp {
	op := []string{"=", "!=", "<", ">"}[g.rnd.IntN(4)]
	rev := g.rnd.Int64N(g.rev + 1)
	switch key := g.key(); g.rnd.IntN(5) {
	case 0:
		return clientv3.Compare(clientv3.Version(key), op, g.rnd.Int64N(4))
	case 1:
		return clientv3.Compare(clientv3.CreateRevision(key), op, rev*g.rnd.Int64N(2))
	case 2:
		return clientv3.Compare(clientv3.Value(key), op, fmt.Sprint("value", g.rnd.IntN(g.n+1)))
	case 3:
		return clientv3.Compare(clientv3.Version("/k/"), op, g.rnd.Int64N(4)).WithPrefix()
	default:
		return clientv3.Compare(clientv3.ModRevision(key), op, rev*g.rnd.Int64N(2))
	}
}

func (g *requests) next() (clientv3.Op, string) {
	switch g.rnd.IntN(10) {
	case 0, 1, 2:
		return g.get(), "get"
	case 3, 4, 5, 6:
		return g.write(), "write"
	}
	var compares []clientv3.Cmp
	for range g.rnd.IntN(3) {
		compares = append(compares, g.compare())
	}
	branch := func() []clientv3.Op {
		ops := []clientv3.Op{g.get(), g.write(), g.get()}
		return ops[g.rnd.IntN(3):]
	}
	then, otherwise := branch(), branch()
	return clientv3.OpTxn(compares, then, otherwise), fmt.Sprintf("if %v then %+v else %+v", compares, then, otherwise)
}

// answer sends a request and writes the answer down, without what identifies the server.
func answer(t *testing.T, c *clientv3.Client, op clientv3.Op) string {
	t.Helper()
	resp, err := c.Do(t.Context(), op)
	if err != nil {
		return err.Error()
	}
	switch {
	case op.IsGet():
		return describeGet(resp.Get())
	case op.IsPut():
		return fmt.Sprint("put at ", resp.Put().Header.Revision, " before ", describeKV(resp.Put().PrevKv))
	case op.IsDelete():
		return describeDelete(resp.Del())
	}
	txn := resp.Txn()
	s := fmt.Sprint("transaction at ", txn.Header.Revision, " ", txn.Succeeded)
	for _, r := range txn.Responses {
		switch {
		case r.GetResponseRange() != nil:
			s += "; " + describeGet((*clientv3.GetResponse)(r.GetResponseRange()))
		case r.GetResponsePut() != nil:
			s += "; put before " + describeKV(r.GetResponsePut().PrevKv)
		case r.GetResponseDeleteRange() != nil:
			s += "; " + describeDelete((*clientv3.DeleteResponse)(r.GetResponseDeleteRange()))
		}
	}
	return s
}

func describeGet(r *clientv3.GetResponse) string {
	s := fmt.Sprint("get ", r.Count, " ", r.More)
	for _, kv := range r.Kvs {
		s += " " + describeKV(kv)
	}
	return s
}

func describeDelete(r *clientv3.DeleteResponse) string {
	s := fmt.Sprint("deleted ", r.Deleted)
	for _, kv := range r.PrevKvs {
		s += " " + describeKV(kv)
	}
	return s
}

func describeKV(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s=%s@%d/%d/%d", kv.Key, kv.Value, kv.ModRevision, kv.CreateRevision, kv.Version)
}

// history writes down what a watch sees up to a revision.
func history(t *testing.T, c *clientv3.Client, key string, opts []clientv3.OpOption, to int64) string {
	t.Helper()
	ctx := clientv3.WithRequireLeader(t.Context())
	events := c.Watch(ctx, key, append(opts, clientv3.WithProgressNotify())...)
	var s strings.Builder
	for {
		if err := c.RequestProgress(ctx); err != nil {
			t.Fatal(err)
		}
		var resp clientv3.WatchResponse
		select {
		case resp = <-events:
		case <-time.After(100 * time.Millisecond):
			continue // etcd forgets a request that comes before its watch has caught up
		}
		if resp.Err() != nil {
			t.Fatalf("watch ended: %v", resp.Err())
		}
		for _, e := range resp.Events {
			fmt.Fprintf(&s, "%v %s before %s; ", e.Type, describeKV(e.Kv), describeKV(e.PrevKv))
		}
		if resp.IsProgressNotify() && resp.Header.Revision >= to {
			return s.String()
		}
	}
}
