// Package memory keeps the memory of the process small while it idles and its garbage collection
// cheap while it works. It is a foundation; cli puts it last in the list of components.
package memory

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Config bounds what the tuner may choose. Percentages are those of GOGC: how much the heap may grow
// over what is live before it is collected.
type Config struct {
	// Idle and Busy are the lowest and highest percentage. 0 means 30 and 200. Of a large heap the lowest is lower.
	Idle, Busy int
	// Interval is the time between two decisions. 0 means 20 s.
	Interval time.Duration
	Log      *slog.Logger
}

// Tuner is the component: it starts when everything else has, so that starting is not slowed down.
type Tuner struct {
	cfg Config
}

// New fills in the defaults. A GOGC that the operator set in the environment is left alone.
func New(cfg Config) *Tuner {
	if cfg.Idle == 0 {
		cfg.Idle = 30
	}
	if cfg.Busy == 0 {
		cfg.Busy = 200
	}
	if cfg.Interval == 0 {
		cfg.Interval = 20 * time.Second
	}
	return &Tuner{cfg: cfg}
}

// Percentages of Start. What lives on lies scattered among what only the start needs, in pages that stay: a site that starts with Go's own 100 holds
// 30 MB more than with 30, for which it starts with a fifth less CPU time.
const (
	ServerStart = 40
	AgentStart  = 30
)

// Start sets the percentage until the Tuner runs. It is called before anything is made.
func Start(percent int) {
	if !fixed() {
		debug.SetGCPercent(percent)
	}
}

// fixed says whether the operator has set a percentage.
func fixed() bool { return os.Getenv("GOGC") != "" }

// Name implements supervisor.Component.
func (*Tuner) Name() string { return "memory" }

// Ready implements supervisor.Component.
func (*Tuner) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (t *Tuner) Run(ctx context.Context) error {
	tick := time.NewTicker(t.cfg.Interval / looks)
	defer tick.Stop()
	percent := t.cfg.Idle
	var trimmed time.Time
	fixed := os.Getenv("GOGC") != ""
	set := func(next int, why cost) {
		if next != percent && !fixed {
			debug.SetGCPercent(next)
			percent = next
			t.cfg.Log.Debug("garbage collection percentage", "percent", next, "cores", why.cores, "share", why.share)
		}
	}
	if !fixed {
		debug.SetGCPercent(percent) // starting is over; a burst of work that comes now would double what it holds
	}
	var before *usage // nothing at first: what starting cost says nothing about running
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		idle := lowest(t.cfg.Idle, readLive())
		if n%looks != 0 { // a burst of work makes the heap large within seconds
			if percent <= t.cfg.Idle {
				set(min(percent, idle), cost{})
			}
			continue
		}
		now := readUsage()
		if before == nil {
			before = &now
			continue
		}
		spent := now.since(*before, t.cfg.Interval)
		before = &now
		set(decide(spent, percent, idle, t.cfg.Busy), spent)
		if percent <= t.cfg.Idle && time.Since(trimmed) > trimEvery {
			trimmed = time.Now()
			t.trim()
		}
	}
}

// looks is how often the size of the heap is looked at between two decisions.
const looks = 10

// Bounds of what an idle heap grows by before it is collected: a large one by no more than spare, but by least percent.
const (
	spare = 48 << 20
	least = 15
)

// lowest is the percentage of an idle process with so many bytes to be marked.
func lowest(idle int, live uint64) int {
	if live == 0 {
		return idle
	}
	return min(idle, max(least, int(spare*100/live)))
}

// readLive is how many bytes the last collection marked, stacks included, which the percentage is of.
func readLive() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

// trimEvery is the shortest time from one trim to the next. What a burst of work touched is given back too; what is used all the time is back
// after some ten milliseconds of page faults.
const trimEvery = 15 * time.Minute

// trim gives back what only the start, or a burst of work, needed: heap, and pages of the program itself.
func (t *Tuner) trim() {
	debug.FreeOSMemory()
	freed, err := dropProgramPages()
	if err != nil {
		t.cfg.Log.Debug("drop pages of the program", "error", err)
		return
	}
	t.cfg.Log.Debug("dropped pages of the program", "mapped bytes", freed)
}

// Bounds of the time in garbage collection between which the percentage stays as it is.
const (
	// idleCores is a part of one core that is too little to save on; onceCores is that when there was only one collection, which an idle site has each
	// minute: judged by the interval it falls into it looks dear, and the heap would double for it.
	idleCores = 0.01
	onceCores = 0.05
	// lowShare and highShare are parts of the CPU time that the process used.
	lowShare  = 0.02
	highShare = 0.05
)

// decide chooses the next percentage from what garbage collection cost since the last decision.
func decide(c cost, percent, idle, busy int) int {
	switch {
	case c.cores < idleCores, c.collections < 2 && c.cores < onceCores:
		return idle
	case c.share < lowShare:
		return max(idle, percent*2/3)
	case c.share > highShare:
		return min(busy, percent*2)
	default:
		return percent
	}
}

// cost is what garbage collection took over some time.
type cost struct {
	cores float64 // CPU seconds a second
	share float64 // part of the CPU time that the process used
	// collections is how many there were.
	collections uint64
}

// usage is CPU time since the start of the process, in seconds, as of the last collection, and the number of collections.
type usage struct {
	gc, busy    float64
	collections uint64
}

func readUsage() usage {
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/user:cpu-seconds"},
		{Name: "/cpu/classes/scavenge/total:cpu-seconds"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	gc := samples[0].Value.Float64()
	return usage{gc: gc, busy: gc + samples[1].Value.Float64() + samples[2].Value.Float64(), collections: samples[3].Value.Uint64()}
}

// since is the cost between two readings that lie interval apart.
func (u usage) since(before usage, interval time.Duration) cost {
	gc, busy := u.gc-before.gc, u.busy-before.busy
	if busy <= 0 {
		return cost{}
	}
	return cost{cores: gc / interval.Seconds(), share: gc / busy, collections: u.collections - before.collections}
}
