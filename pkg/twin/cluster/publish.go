package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/store"
)

const (
	// pulse is how often waiting devices are looked at.
	pulse = 200 * time.Millisecond
	// batch is how many waiting reports are sent between two looks at what is new.
	batch = 100
)

// report is the state of one device at one moment, on its way to the API.
type report struct {
	Key      string         `json:"key"`
	UID      string         `json:"uid"`
	Status   v1beta1.Status `json:"status"`
	sequence uint64
}

// publisher decides when which device is reported. Each has its turn in the order in which they changed, at most once an interval, and
// all together at most at the rate.
type publisher struct {
	link    *Link
	changes *hub.Changes
	queue   []string // devices that have changed, the longest waiting first
	queued  map[string]bool
	last    map[string]time.Time
	tokens  float64
	filled  time.Time
	away    bool      // reports go to disk, behind those that wait there
	retry   time.Time // when the API is tried again
	pause   time.Duration
	dropped int
}

func newPublisher(l *Link) *publisher {
	return &publisher{
		link: l, changes: l.cfg.Hub.Subscribe(hub.Specification|hub.Reported|hub.Refreshed, true),
		queued: map[string]bool{}, last: map[string]time.Time{}, tokens: float64(l.cfg.Rate), filled: time.Now(),
		away: l.cfg.Hub.Store().Waiting() > 0, pause: firstRetry,
	}
}

func (p *publisher) run(ctx context.Context) {
	defer p.changes.Close()
	for ctx.Err() == nil {
		if len(p.queue) == 0 && !p.away {
			if !p.changes.Await(ctx) {
				return
			}
		} else if !sleep(ctx, pulse) {
			return
		}
		p.step(ctx, time.Now())
	}
}

// step does what is due.
func (p *publisher) step(ctx context.Context, now time.Time) {
	keys, _ := p.changes.Take()
	for _, key := range keys {
		if !p.queued[key] {
			p.queued[key] = true
			p.queue = append(p.queue, key)
		}
	}
	reports, err := p.cut(now)
	if err != nil {
		p.link.cfg.Log.Warn("reports of devices wait", "error", err)
		return
	}
	if p.away {
		p.keep(reports)
		if !now.Before(p.retry) {
			p.replay(ctx)
		}
		return
	}
	left, again := p.link.sendAll(ctx, reports)
	p.later(again)
	if len(left) > 0 {
		p.keep(left)
		p.away, p.pause = true, firstRetry
		p.wait()
	}
}

// cut takes the reports of devices whose turn it is.
func (p *publisher) cut(now time.Time) (reports []report, err error) {
	rate := float64(p.link.cfg.Rate)
	p.tokens = min(rate, p.tokens+now.Sub(p.filled).Seconds()*rate)
	p.filled = now
	var later []string
	for i, key := range p.queue {
		if p.tokens < 1 {
			later = append(later, p.queue[i:]...)
			break
		}
		if now.Sub(p.last[key]) < p.link.cfg.Interval {
			later = append(later, key)
			continue
		}
		delete(p.queued, key)
		r, ok, e := p.report(key)
		if e != nil {
			err = e
			p.queued[key] = true
			later = append(later, key)
			continue
		}
		if !ok {
			delete(p.last, key)
			continue
		}
		p.tokens--
		p.last[key] = now
		reports = append(reports, r)
	}
	p.queue = later
	return reports, err
}

func (p *publisher) report(key string) (report, bool, error) {
	v, ok := p.link.cfg.Hub.Get(key)
	if !ok {
		return report{}, false, nil
	}
	status := merge.Status(v.State)
	if len(status.Twins) == 0 && status.State == "" {
		return report{}, false, nil // it has said nothing yet
	}
	id, n, err := p.link.cfg.Hub.Store().Sequence()
	if err != nil {
		return report{}, false, err
	}
	status.Extensions = map[string]any{v1beta1.ExtensionSequence: fmt.Sprintf("%s:%d", id, n)}
	return report{Key: key, UID: string(v.Device.UID), Status: status, sequence: n}, true, nil
}

// keep puts reports behind those that wait on disk.
func (p *publisher) keep(reports []report) {
	var waiting []store.Report
	for _, r := range reports {
		data, err := json.Marshal(r)
		if err != nil {
			p.link.cfg.Log.Warn("report of a device is lost", "device", r.Key, "error", err)
			continue
		}
		waiting = append(waiting, store.Report{Sequence: r.sequence, Data: data})
	}
	dropped, err := p.link.cfg.Hub.Store().Append(waiting, p.link.cfg.Buffer)
	if err != nil {
		p.link.cfg.Log.Warn("reports of devices are lost", "count", len(waiting), "error", err)
	}
	if dropped > 0 && p.dropped == 0 {
		p.link.cfg.Log.Warn("too many reports wait for the API: the oldest are dropped", "bytes", p.link.cfg.Buffer)
	}
	p.dropped += dropped
}

// later gives devices whose report was refused another turn after a while.
func (p *publisher) later(keys []string) {
	for _, key := range keys {
		p.last[key] = time.Now().Add(lastRetry)
	}
	p.changes.Again(keys)
}

// wait puts off the next attempt.
func (p *publisher) wait() {
	p.retry = time.Now().Add(p.pause/2 + rand.N(p.pause/2))
	p.pause = min(2*p.pause, lastRetry)
}

// replay sends reports that wait, the oldest first. When none is left, reports go straight to the API again.
func (p *publisher) replay(ctx context.Context) {
	waiting, err := p.link.cfg.Hub.Store().Oldest(batch)
	if err != nil {
		p.link.cfg.Log.Warn("waiting reports cannot be read", "error", err)
		p.wait()
		return
	}
	if len(waiting) == 0 {
		p.away, p.dropped = false, 0
		return
	}
	var reports []report
	for _, w := range waiting {
		r := report{}
		if err := json.Unmarshal(w.Data, &r); err != nil {
			r.Key = "" // cannot be sent, and is removed
		}
		r.sequence = w.Sequence
		reports = append(reports, r)
	}
	done, reached, again := p.link.resend(ctx, reports)
	p.later(again)
	if err := p.link.cfg.Hub.Store().Remove(done); err != nil {
		p.link.cfg.Log.Warn("reports that have arrived are not removed", "error", err)
		p.wait()
		return
	}
	if !reached {
		p.wait()
		return
	}
	p.pause = firstRetry
}
