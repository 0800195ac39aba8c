// Package check looks at the machine before kedge starts on it, and for kedge check-config: kernel, cgroups, ports, disk,
// clock, limits, and whether the data directory is free and of a version this kedge can read. What the machine answers is
// read in thin functions; what it means is decided in pure ones. It is a foundation that only cli imports.
package check

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Outcome is what a check found.
type Outcome string

// The outcomes. With Fail kedge cannot work; with Warn it works, with the limit that Detail names.
const (
	Pass Outcome = "pass"
	Warn Outcome = "warn"
	Fail Outcome = "fail"
)

// Result is one row of the report.
type Result struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Fix says how to mend it; empty when there is nothing to mend.
	Fix string `json:"fix,omitempty"`
}

func pass(detail string) Result      { return Result{Outcome: Pass, Detail: detail} }
func warn(detail, fix string) Result { return Result{Outcome: Warn, Detail: detail, Fix: fix} }
func fail(detail, fix string) Result { return Result{Outcome: Fail, Detail: detail, Fix: fix} }

// Config says what kedge is going to be on this machine.
type Config struct {
	DataDir string
	// BindAddress and Port are where a server listens; port 0 means no server.
	BindAddress netip.Addr
	Port        int
	// Node says that containers run here.
	Node bool
	// KubeProxy says that kedge's own kube-proxy runs here.
	KubeProxy bool
	// Snapshotter is overlayfs or native.
	Snapshotter string
	// Files are the files that settings name, by flag: they must be readable. Empty paths are passed over.
	Files map[string]string
	// CAFile is the certificate of the cluster's authority; the clock must not be before its birth. It may be missing.
	CAFile string
	// Built is when this kedge was built, zero when unknown: the clock must not be before that.
	Built time.Time
}

// row is one check. Those of the preflight decide whether kedge can start; the rest is advice.
type row struct {
	name      string
	preflight bool
	node      bool // only where containers run
	do        func(Config, *probes) Result
}

func rows() []row {
	return []row{
		{"user", true, false, checkUser},
		{"files", true, false, checkFiles},
		{"data directory", true, false, checkDataDir},
		{"disk space", true, false, checkDisk},
		{"data version", false, false, checkDataVersion},
		{"clock", true, false, checkClock},
		{"clock synchronisation", false, false, checkClockSync},
		{"ports", true, false, checkPorts},
		{"kernel version", true, true, checkKernel},
		{"capabilities", true, true, checkCapabilities},
		{"cgroups", true, true, checkCgroups},
		{"namespaces", true, true, checkNamespaces},
		{"seccomp", true, true, checkSeccomp},
		{"overlayfs", true, true, checkOverlay},
		{"nftables", true, true, checkNFTables},
		{"bridge and veth", true, true, checkLinks},
		{"vxlan", false, true, checkVXLAN},
		{"connection tracking", false, true, checkConntrack},
		{"kernel settings", true, true, checkSysctl},
		{"kernel log", true, true, checkKernelLog},
		{"inotify limits", false, true, checkInotify},
		{"open files", false, false, checkOpenFiles},
		{"memory", false, false, checkMemory},
		{"swap", false, true, checkSwap},
	}
}

// Run makes every check that applies, in the order of the report.
func Run(cfg Config) []Result { return run(cfg, false) }

// Preflight makes the checks that decide whether kedge can start. It returns the warnings, and an error with one line for
// each failure. It changes nothing on the machine.
func Preflight(cfg Config) ([]Result, error) {
	var warnings []Result
	var errs []error
	for _, r := range run(cfg, true) {
		switch r.Outcome {
		case Warn:
			warnings = append(warnings, r)
		case Fail:
			errs = append(errs, fmt.Errorf("%s: %s: %s", r.Name, r.Detail, r.Fix))
		}
	}
	return warnings, errors.Join(errs...)
}

func run(cfg Config, preflight bool) []Result {
	p := &probes{}
	if cfg.Node {
		p = probeKernel(cfg)
	}
	var results []Result
	for _, r := range rows() {
		if r.node && !cfg.Node || preflight && !r.preflight {
			continue
		}
		result := r.do(cfg, p)
		result.Name = r.name
		results = append(results, result)
	}
	return results
}
