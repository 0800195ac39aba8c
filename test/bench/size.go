package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

const mib = 1 << 20

// sizes weighs the binary, and the binary as it would be downloaded.
func (b *bench) sizes() error {
	const path = "bin/kedge"
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(b.ctx, "sh", "-c", "zstd -19 -T0 -q -c "+path+" | wc -c").Output()
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	packed, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		return err
	}
	b.report.add(
		row{Name: "binary with payload", Value: float64(info.Size()) / mib, Unit: "MiB"},
		row{Name: "download", Value: packed / 1e6, Unit: "MB", Target: "70; 50", Note: "zstd -19"},
	)
	return nil
}

// release builds a release of all architectures, or of those in ARCHS, and weighs its files. It takes many minutes, so it is measured
// only when it is asked for by name.
func (b *bench) release() error {
	begin := time.Now()
	cmd := exec.CommandContext(b.ctx, "scripts/release.sh")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the release: %w", err)
	}
	b.report.add(row{Name: "release build", Value: time.Since(begin).Seconds(), Unit: "s", Note: "what was built before is not built again"})
	for _, arch := range []string{"amd64", "arm64", "arm"} {
		for _, form := range []string{"", ".zst", ".xz", ".gz"} {
			name := "kedge-" + arch + form
			info, err := os.Stat(filepath.Join("dist", name))
			if os.IsNotExist(err) {
				continue // not asked for
			}
			if err != nil {
				return err
			}
			r := row{Name: "release " + name, Value: float64(info.Size()) / 1e6, Unit: "MB"}
			if form == ".zst" {
				r.Target = "70; 50"
			}
			b.report.add(r)
		}
	}
	return nil
}

// settleTime is how long a site is left alone before its memory is read.
const settleTime = 30 * time.Second

// switches are the add-ons and parts that can be switched off, each with its flag.
func switches() map[string]string {
	all := map[string]string{"network-policy": "--disable-network-policy"}
	for _, name := range []string{"autonomy", "coredns", "devices", "grid", "helm", "ingress", "local-storage", "metrics-server", "runtimes", "servicelb"} {
		all[name] = "--disable=" + name
	}
	return all
}

// addonMemory measures what each add-on that nobody uses holds: a site with all of them beside one without it.
func (b *bench) addonMemory() error {
	all := switches()
	with, anonWith, err := b.settled("all")
	if err != nil {
		return err
	}
	b.report.add(row{"live heap with all add-ons", with, "MiB", "", fmt.Sprintf("%.0f MiB anonymous", anonWith)})
	flags := []string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		flags = append(flags, all[name])
		without, anon, err := b.settled(name, all[name])
		if err != nil {
			return err
		}
		b.report.add(row{"  of it " + name, with - without, "MiB", "", fmt.Sprintf("%.0f MiB anonymous less; within some MiB by chance", anonWith-anon)})
	}
	without, anon, err := b.settled("none", flags...)
	if err != nil {
		return err
	}
	b.report.add(row{"live heap without any", without, "MiB", "", fmt.Sprintf("%.0f MiB anonymous", anon)})
	return nil
}

// settled starts a site, leaves it alone for a while, and returns its live heap and its anonymous memory in MiB. It ends the site.
func (b *bench) settled(name string, args ...string) (heap, anon float64, err error) {
	n, _, err := b.site("without-"+name, append(args, profiling)...)
	if err != nil {
		return 0, 0, err
	}
	defer n.Stop()
	b.wait(settleTime)
	if anon, err = anonymous(n); err != nil {
		return 0, 0, err
	}
	return liveHeap(n), anon, nil
}

// profiling lets liveHeap ask for a garbage collection.
const profiling = "--kube-apiserver-arg=profiling=true"

// liveHeap is what the process still needs after a garbage collection, in MiB.
func liveHeap(n *lab.Node) float64 {
	n.Kubectl("get", "--raw", "/debug/pprof/heap?gc=1")
	return gauge(n.Kubectl("get", "--raw", "/metrics"), "go_memstats_heap_alloc_bytes") / mib
}

// anonymous is the anonymous memory of kedge in MiB.
func anonymous(n *lab.Node) (float64, error) {
	status, err := n.Status()
	if err != nil {
		return 0, err
	}
	text, err := n.Run("cat", fmt.Sprintf("/proc/%d/smaps_rollup", status.PID))
	if err != nil {
		return 0, err
	}
	return kilobytes(text)["Pss_Anon"] / 1024, nil
}
