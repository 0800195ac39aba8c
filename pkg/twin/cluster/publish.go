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
// all together at most at the rate. Requests are on their way in the background: one that hangs does not keep the next reports from being
// cut.
type publisher struct {
	link    *Link
	changes *hub.Changes
	queue   []string // devices that have changed, the longest waiting first
	queued  map[string]bool
	last    map[string]time.Time
	tokens  float64
	filled  time.Time
	held    []report // cut while others are on their way to the API
	away    bool     // reports go to disk, behind those that wait there
	flying  bool
	landed  chan landing
	retry   time.Time // when the API is tried again
	pause   time.Duration
	dropped int
}

// landing is what became of reports that were on their way.
type landing struct {
	replay bool
	left   []report // not taken because the API is away
	again  []string // devices of which the API would not have a report
	ok     bool     // of a replay: go on at once
}

// recall takes over the newest report of each device that waits on disk: after a power cut it may be newer than the twin, which is written less
// often, and an old value with a new number would follow a new value.
func (l *Link) recall() error {
	left := map[string]bool{}
	for _, v := range l.cfg.Hub.List() {
		left[v.Key] = true
	}
	newest := map[string]v1beta1.Status{}
	err := l.cfg.Hub.Store().Newest(func(w store.Report) bool {
		var r report
		if err := json.Unmarshal(w.Data, &r); err == nil && left[r.Key] {
			newest[r.Key] = r.Status
			delete(left, r.Key)
		}
		return len(left) > 0
	})
	for key, status := range newest {
		l.cfg.Hub.Recall(key, status)
	}
	return err
}

func newPublisher(l *Link) *publisher {
	if err := l.recall(); err != nil {
		l.cfg.Log.Warn("waiting reports cannot be read", "error", err)
	}
	return &publisher{
		link: l, changes: l.cfg.Hub.Subscribe(hub.Specification|hub.Reported|hub.Refreshed, true), landed: make(chan landing, 1),
		queued: map[string]bool{}, last: map[string]time.Time{}, tokens: float64(l.cfg.Rate), filled: time.Now(),
		away: l.cfg.Hub.Store().Waiting() > 0, pause: firstRetry,
	}
}

func (p *publisher) run(ctx context.Context) {
	defer p.changes.Close()
	for ctx.Err() == nil {
		if len(p.queue)+len(p.held) == 0 && !p.away && !p.flying {
			if !p.changes.Await(ctx) {
				break
			}
		} else if !sleep(ctx, pulse) {
			break
		}
		p.step(ctx, time.Now())
	}
	if p.flying {
		p.land(<-p.landed)
	}
	p.keep(p.held)
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
	}
	select {
	case l := <-p.landed:
		p.land(l)
	default:
	}
	if p.away {
		p.keep(reports)
	} else {
		p.held = append(p.held, reports...)
	}
	switch {
	case p.flying:
	case p.away && !now.Before(p.retry):
		p.fly(func() landing { return p.replay(ctx) })
	case !p.away && len(p.held) > 0:
		batch := p.held
		p.held = nil
		p.fly(func() landing {
			left, again := p.link.deliver(ctx, batch)
			return landing{left: left, again: again}
		})
	}
}

func (p *publisher) fly(do func() landing) {
	p.flying = true
	go func() { p.landed <- do() }()
}

func (p *publisher) land(l landing) {
	p.flying = false
	p.later(l.again)
	switch {
	case l.replay && !l.ok, !l.replay && len(l.left) > 0:
		if !p.away {
			p.away, p.pause = true, firstRetry
		}
		p.keep(append(l.left, p.held...))
		p.held = nil
		p.wait()
	case l.replay:
		p.pause = firstRetry
		if p.link.cfg.Hub.Store().Waiting() == 0 {
			p.away, p.dropped = false, 0
		}
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

// replay sends reports that wait, the oldest first.
func (p *publisher) replay(ctx context.Context) landing {
	waiting, err := p.link.cfg.Hub.Store().Oldest(batch)
	if err != nil {
		p.link.cfg.Log.Warn("waiting reports cannot be read", "error", err)
		return landing{replay: true}
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
	if err := p.link.cfg.Hub.Store().Remove(done); err != nil {
		p.link.cfg.Log.Warn("reports that have arrived are not removed", "error", err)
		reached = false
	}
	return landing{replay: true, ok: reached, again: again}
}
