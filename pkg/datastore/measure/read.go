package measure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

func (b *bench) listPrefix() string { return b.prefix + "list/" }

// fill makes the keys of the list runs and returns the revision of the last.
func (b *bench) fill(ctx context.Context, c *clientv3.Client) (int64, error) {
	const workers = 32
	revs := make([]int64, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for k := i; k < b.cfg.List && errs[i] == nil; k += workers {
				var resp *clientv3.PutResponse
				if resp, errs[i] = c.Put(ctx, fmt.Sprintf("%s%06d", b.listPrefix(), k), b.value); errs[i] == nil {
					revs[i] = resp.Header.Revision
				}
			}
		})
	}
	wg.Wait()
	var last int64
	for i := range workers {
		if errs[i] != nil {
			return 0, fmt.Errorf("fill: %w", errs[i])
		}
		last = max(last, revs[i])
	}
	return last, nil
}

func (b *bench) gets(ctx context.Context) error {
	c, err := dial(b.cfg.Endpoint)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := b.fill(ctx, c); err != nil {
		return err
	}
	for _, n := range []int{1, 16} {
		err := b.load(ctx, "get", n, func(ctx context.Context, c *clientv3.Client, _, _ int) error {
			resp, err := c.Get(ctx, fmt.Sprintf("%s%06d", b.listPrefix(), rand.IntN(b.cfg.List)))
			if err == nil && len(resp.Kvs) != 1 {
				return fmt.Errorf("%d keys", len(resp.Kvs))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) lists(ctx context.Context) error {
	c, err := dial(b.cfg.Endpoint)
	if err != nil {
		return err
	}
	defer c.Close()
	last, err := b.fill(ctx, c)
	if err != nil {
		return err
	}
	const rounds = 10
	for round := range 2 {
		name := fmt.Sprintf("list %d", b.cfg.List)
		opts := []clientv3.OpOption{clientv3.WithPrefix()}
		if round == 1 { // every key has a newer value now
			if _, err := b.fill(ctx, c); err != nil {
				return err
			}
			name += " at an old revision"
			opts = append(opts, clientv3.WithRev(last))
		}
		var times []time.Duration
		start := time.Now()
		for range rounds {
			begin := time.Now()
			resp, err := c.Get(ctx, b.listPrefix(), opts...)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if len(resp.Kvs) != b.cfg.List {
				return fmt.Errorf("%s: %d keys", name, len(resp.Kvs))
			}
			times = append(times, time.Since(begin))
		}
		b.add(name, 1, times, time.Since(start))
	}
	return nil
}

// fanOut measures the time from the call that writes to the arrival at each of many watches.
func (b *bench) fanOut(ctx context.Context) error {
	const writes = 200
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := dial(b.cfg.Endpoint)
	if err != nil {
		return err
	}
	defer c.Close()
	key := b.prefix + "fan-out"
	starts := make([]time.Time, writes+1)
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	for i := range b.cfg.Watchers {
		// metadata of its own gives each watch a stream of its own, as each resource of the apiserver has
		wctx := metadata.AppendToOutgoingContext(ctx, "watch", fmt.Sprint(i))
		events := c.Watch(wctx, key, clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		<-events
		wg.Go(func() {
			for seen := 0; seen < writes; {
				resp, ok := <-events
				if !ok {
					return
				}
				now := time.Now()
				mu.Lock()
				for _, e := range resp.Events {
					times = append(times, now.Sub(starts[e.Kv.Version%(writes+1)]))
				}
				mu.Unlock()
				seen += len(resp.Events)
			}
		})
	}
	begin := time.Now()
	for i := range writes {
		mu.Lock()
		starts[i+1] = time.Now()
		mu.Unlock()
		if _, err := c.Put(ctx, key, b.value); err != nil {
			return fmt.Errorf("fan-out: %w", err)
		}
	}
	wg.Wait()
	b.add(fmt.Sprintf("event at one of %d watches", b.cfg.Watchers), 1, times, time.Since(begin))
	return nil
}
