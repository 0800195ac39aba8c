// Command bench measures the built kedge on machines of the lab, prints a table beside the project's targets and writes
// bench/latest.json. It compares and never fails because of a figure. Run it with make bench, as root, on a quiet machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rows string
	runs int
	idle time.Duration
	pods int
	// cut is how long the row reconnect leaves a node without its server, at least.
	cut time.Duration
	// units and grids are the size of the fleet of simulated nodes.
	units, grids int
	out          string
}

// step measures some rows.
type step struct {
	name string
	run  func(b *bench) error
}

// steps in the order they run; the short ones come first.
func steps() []step {
	return []step{
		{"size", (*bench).sizes},
		{"release", (*bench).release},
		{"start", (*bench).starts},
		{"idle", (*bench).idleSite},
		{"agent", (*bench).agent},
		{"reconnect", (*bench).reconnect},
		{"storm", (*bench).storm},
		{"offline-reboot", (*bench).offlineReboot},
		{"pods", (*bench).podStarts},
		{"api", (*bench).apiWrites},
		{"addons", (*bench).addons},
		{"addon-memory", (*bench).addonMemory},
		{"store", (*bench).store},
		{"grid", (*bench).grid},
		{"devices", (*bench).devices},
	}
}

func main() {
	var o options
	names := make([]string, 0, len(steps()))
	for _, s := range steps() {
		if s.name != "release" { // only when asked for: it takes long
			names = append(names, s.name)
		}
	}
	flag.StringVar(&o.rows, "rows", strings.Join(names, ","), "what to measure")
	flag.IntVar(&o.runs, "runs", 3, "cold and warm starts; the median counts")
	flag.DurationVar(&o.idle, "idle", 5*time.Minute, "how long an idle site is watched")
	flag.DurationVar(&o.cut, "cut", 5*time.Second, "how long the row reconnect cuts a node off, at least: 10m is what the target speaks of")
	flag.IntVar(&o.pods, "pods", 40, "pods started one a second; half as many again come five a second")
	flag.IntVar(&o.units, "units", 1000, "units, of one simulated node each, that the row grid has")
	flag.IntVar(&o.grids, "grids", 10, "workloads in each of them")
	flag.StringVar(&o.out, "o", "bench/latest.json", "file for the figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures what was asked for; a step that cannot be measured is reported and the others go on.
func run(ctx context.Context, o options) error {
	b := &bench{ctx: ctx, opt: o, report: newReport()}
	fmt.Println(b.report.Host)
	var errs []error
	for _, s := range steps() {
		if !strings.Contains(","+o.rows+",", ","+s.name+",") || ctx.Err() != nil {
			continue
		}
		fmt.Printf("measuring %s\n", s.name)
		if err := b.measure(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	b.report.print(os.Stdout)
	return errors.Join(append(errs, b.report.write(o.out))...)
}
