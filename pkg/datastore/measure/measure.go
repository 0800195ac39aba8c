// Package measure loads an etcd endpoint with the requests of an apiserver and reports what it stands.
// The benchmark program and the tests of pkg/datastore may import it; nothing that ships does.
package measure

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Config says what to measure.
type Config struct {
	Endpoint string        // as for --etcd-servers
	Clients  []int         // numbers of clients that write at once; empty means 1, 16 and 64
	Duration time.Duration // of each write and get run; 0 means 3 s
	Value    int           // bytes of a value; 0 means 1024
	List     int           // keys in the list runs; 0 means 10,000
	Watchers int           // watches in the fan-out run; 0 means 100
	Between  func()        // called between runs, to sample files or memory; may be nil
}

// Result is one line of the report.
type Result struct {
	Name          string        `json:"name"`
	Clients       int           `json:"clients"`
	PerSecond     float64       `json:"perSecond"`
	P50, P99, Max time.Duration `json:"-"`
	P50ms         float64       `json:"p50ms"`
	P99ms         float64       `json:"p99ms"`
	Maxms         float64       `json:"maxms"`
}

type bench struct {
	cfg     Config
	prefix  string // new in each run
	value   string
	results []Result
}

// Run measures creates and updates with each number of clients, gets, lists now and at an old revision,
// and the time from a write to its watchers. It leaves its keys behind.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	if len(cfg.Clients) == 0 {
		cfg.Clients = []int{1, 16, 64}
	}
	cfg.Duration = orDefault(cfg.Duration, 3*time.Second)
	cfg.Value = orDefault(cfg.Value, 1024)
	cfg.List = orDefault(cfg.List, 10_000)
	cfg.Watchers = orDefault(cfg.Watchers, 100)
	if cfg.Between == nil {
		cfg.Between = func() {}
	}
	raw := make([]byte, cfg.Value)
	for i := range raw {
		raw[i] = byte('a' + rand.IntN(26))
	}
	b := &bench{cfg: cfg, value: string(raw), prefix: fmt.Sprintf("/registry/measure-%08x/", rand.Uint32())}
	steps := []func(context.Context) error{}
	for _, n := range cfg.Clients {
		steps = append(steps,
			func(ctx context.Context) error { return b.creates(ctx, n) },
			func(ctx context.Context) error { return b.updates(ctx, n) })
	}
	steps = append(steps, b.gets, b.lists, b.fanOut)
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return b.results, err
		}
		cfg.Between()
	}
	return b.results, nil
}

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// Print writes the results as a table.
func Print(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tclients\tper second\tp50 ms\tp99 ms\tmax ms")
	for _, r := range results {
		fmt.Fprintf(tw, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\n", r.Name, r.Clients, r.PerSecond, r.P50ms, r.P99ms, r.Maxms)
	}
	return tw.Flush()
}

func dial(endpoint string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return c, nil
}

// op is one request of worker i, its n-th.
type op func(ctx context.Context, c *clientv3.Client, i, n int) error

// load lets n workers send requests for the configured time. Every 16 share a connection.
func (b *bench) load(ctx context.Context, name string, n int, do op) error {
	clients := make([]*clientv3.Client, (n+15)/16)
	for i := range clients {
		c, err := dial(b.cfg.Endpoint)
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
		if _, err := c.Get(ctx, b.prefix); err != nil { // connected before the clock starts
			return err
		}
	}
	times := make([][]time.Duration, n)
	errs := make([]error, n)
	var stop atomic.Bool
	timer := time.AfterFunc(b.cfg.Duration, func() { stop.Store(true) })
	defer timer.Stop()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for k := 0; !stop.Load(); k++ {
				begin := time.Now()
				if errs[i] = do(ctx, clients[i/16], i, k); errs[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.add(name, n, slices.Concat(times...), time.Since(start))
	return nil
}

func (b *bench) add(name string, clients int, times []time.Duration, took time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	r := Result{
		Name: name, Clients: clients, PerSecond: float64(len(times)) / took.Seconds(),
		P50: times[len(times)/2], P99: times[len(times)*99/100], Max: times[len(times)-1],
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.P50ms, r.P99ms, r.Maxms = ms(r.P50), ms(r.P99), ms(r.Max)
	b.results = append(b.results, r)
}

func (b *bench) creates(ctx context.Context, n int) error {
	return b.load(ctx, "create", n, func(ctx context.Context, c *clientv3.Client, i, k int) error {
		_, err := put(ctx, c, fmt.Sprintf("%screate-%d/%d-%d", b.prefix, n, i, k), b.value, 0)
		return err
	})
}

func (b *bench) updates(ctx context.Context, n int) error {
	revs := make([]int64, n)
	return b.load(ctx, "update", n, func(ctx context.Context, c *clientv3.Client, i, _ int) (err error) {
		revs[i], err = put(ctx, c, fmt.Sprintf("%supdate-%d/%d", b.prefix, n, i), b.value, revs[i])
		return err
	})
}

// put writes a key if it still has revision rev, 0 meaning that it does not exist.
func put(ctx context.Context, c *clientv3.Client, key, value string, rev int64) (int64, error) {
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
		Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("write %s at revision %d: another is there", key, rev)
	}
	return resp.Header.Revision, nil
}
