package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/grid/controller"
)

// Own is what the grid's controllers alone need.
type Own struct {
	HeapMiB float64       // what they hold
	CPU     time.Duration // to read the fleet and look at all of it once
	// Writes is how many requests they made that change something. All is well, so there should be none.
	Writes int
}

// MeasureOwn runs the controllers of a second server in this process, next to those of the first, for some time.
func (f *Fleet) MeasureOwn(ctx context.Context, d time.Duration) (Own, error) {
	cfg := rest.CopyConfig(f.cfg)
	cfg.UserAgent = "kedge/grid"
	engine, err := controller.New(controller.Config{Client: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return Own{}, err
	}
	mark, err := f.Mark()
	if err != nil {
		return Own{}, err
	}
	heap, cpu := live(), used()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	select {
	case <-time.After(d * 9 / 10):
	case <-ctx.Done():
	}
	out := Own{CPU: used() - cpu, HeapMiB: live() - heap}
	cancel()
	if err := <-ended; err != nil {
		return Own{}, fmt.Errorf("controllers: %w", err)
	}
	requests, err := f.Since(mark)
	for _, verb := range []string{"create", "update", "patch", "delete"} {
		for _, what := range []string{"deployments", "deploymentgrids", "deploymentgrids/status"} {
			out.Writes += requests["grid "+verb+" "+what]
		}
	}
	return out, err
}

// live is the memory in MiB that is left after a garbage collection.
func live() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// used is the processor time of this process so far.
func used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
