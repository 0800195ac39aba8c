package helm

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

// stopTime is how long running work may hold the stop.
const stopTime = 5 * time.Second

// desk hands charts to workers: each chart to one at a time, a few charts at once.
type desk struct {
	work func(context.Context, *v1.HelmChart, *v1.HelmChartConfig) (time.Duration, error)
	log  *slog.Logger
	ctx  context.Context //nolint:containedctx // of the component that it is a part of

	charts  []v1.HelmChart
	configs map[string]*v1.HelmChartConfig
	busy    map[string]bool
	seen    map[string]string    // versions of chart and config that were looked at
	due     map[string]time.Time // when to look again
	done    chan finished
	over    chan struct{} // closed when nobody takes in what is finished any more
}

// finished is a piece of work that has come to its end.
type finished struct {
	key   string
	after time.Duration
	err   error
}

// serve hands out work until something has changed.
func (d *desk) serve(charts, configs <-chan watch.Event) {
	d.compare()
	for d.ctx.Err() == nil {
		timer := time.NewTimer(d.start())
		select {
		case <-d.ctx.Done():
		case f := <-d.done:
			d.finish(f)
			timer.Stop()
			return // what it wrote is read before anything is decided again
		case e, open := <-charts:
			if !open || matters(e, d.charts) {
				timer.Stop()
				d.pause(settle)
				return
			}
		case <-configs:
			timer.Stop()
			d.pause(settle)
			return
		case <-timer.C:
		}
		timer.Stop()
	}
}

// compare makes due what is not as it was when it was last looked at, and forgets what is gone.
func (d *desk) compare() {
	there := map[string]bool{}
	for i := range d.charts {
		key := keyOf(&d.charts[i])
		there[key] = true
		if d.seen[key] != d.version(&d.charts[i]) {
			d.due[key] = time.Now()
		}
	}
	gone := func(key string) bool { return !there[key] }
	maps.DeleteFunc(d.seen, func(key string, _ string) bool { return gone(key) })
	maps.DeleteFunc(d.due, func(key string, _ time.Time) bool { return gone(key) })
}

func (d *desk) version(c *v1.HelmChart) string {
	v := c.ResourceVersion
	if config := d.configs[keyOf(c)]; config != nil {
		v += "/" + config.ResourceVersion
	}
	return v
}

// start gives work to free workers and returns how long nothing more is due.
func (d *desk) start() time.Duration {
	wait := watchTime
	now := time.Now()
	for i := range d.charts {
		c := &d.charts[i]
		key := keyOf(c)
		when, known := d.due[key]
		switch {
		case d.busy[key] || !known:
		case when.After(now):
			wait = min(wait, when.Sub(now))
		case len(d.busy) < atOnce:
			d.busy[key], d.seen[key] = true, d.version(c)
			delete(d.due, key)
			config := d.configs[key]
			go func() {
				after, err := d.work(d.ctx, c, config)
				select {
				case d.done <- finished{key, after, err}:
				case <-d.over:
				}
			}()
		}
	}
	return wait
}

func (d *desk) finish(f finished) {
	delete(d.busy, f.key)
	if f.err != nil && d.ctx.Err() == nil {
		d.log.Warn("helm chart will be looked at again", "chart", f.key, "error", f.err)
		f.after = max(f.after, firstRetry)
	}
	if f.after > 0 {
		d.due[f.key] = time.Now().Add(f.after)
	}
}

// pause waits, and goes on taking in what is finished.
func (d *desk) pause(span time.Duration) {
	timer := time.NewTimer(span)
	defer timer.Stop()
	for {
		select {
		case f := <-d.done:
			d.finish(f)
		case <-timer.C:
			return
		case <-d.ctx.Done():
			return
		}
	}
}

// wait lets running work come to its end after ctx is done, for a while: what is cut off is done again at the next start.
func (d *desk) wait() {
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	defer close(d.over)
	for len(d.busy) > 0 {
		select {
		case f := <-d.done:
			d.finish(f)
		case <-timer.C:
			return
		}
	}
}

func keyOf(c *v1.HelmChart) string { return c.Namespace + "/" + c.Name }
