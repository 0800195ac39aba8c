package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one figure beside its target.
type row struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target,omitempty"` // gate; goal
	Note   string  `json:"note,omitempty"`
}

// host says how fast the machine itself is, so that runs on different machines can be compared.
type host struct {
	CPUs       int       `json:"cpus"`
	Fdatasyncs float64   `json:"fdatasyncsPerSecond"` // appends of 4 KiB, each made durable
	SHA256     float64   `json:"sha256MiBPerSecond"`  // one core
	Load       string    `json:"load"`
	When       time.Time `json:"when"`
}

func (h host) String() string {
	return fmt.Sprintf("host: %d CPUs, %.0f fdatasync/s, %.0f MiB/s SHA-256 on one core, load %s", h.CPUs, h.Fdatasyncs, h.SHA256, h.Load)
}

type report struct {
	Host host  `json:"host"`
	Rows []row `json:"rows"`
}

func newReport() *report {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("unknown")
	}
	return &report{Host: host{
		CPUs: runtime.NumCPU(), Fdatasyncs: fdatasyncRate(), SHA256: hashRate(), Load: string(load[:min(14, len(load))]), When: time.Now().UTC(),
	}}
}

func (r *report) add(rows ...row) {
	for _, x := range rows {
		fmt.Printf("  %s: %.4g %s\n", x.Name, x.Value, x.Unit)
	}
	r.Rows = append(r.Rows, rows...)
}

func (r *report) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tmeasured\tgate; goal\tnote")
	for _, x := range r.Rows {
		fmt.Fprintf(tw, "%s\t%.4g %s\t%s\t%s\n", x.Name, x.Value, x.Unit, x.Target, x.Note)
	}
	tw.Flush()
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// fdatasyncRate is how many small appends the file system under the current directory makes durable in a second, one
// after the other; 0 when it cannot be told.
func fdatasyncRate() float64 {
	f, err := os.CreateTemp(".", ".bench-*")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	begin, n := time.Now(), 0
	for ; time.Since(begin) < time.Second; n++ {
		if _, err := f.Write(block); err != nil || fdatasync(f) != nil {
			return 0
		}
	}
	return float64(n) / time.Since(begin).Seconds()
}

// hashRate is a score of one core.
func hashRate() float64 {
	block := make([]byte, 1<<20)
	begin, n := time.Now(), 0
	for ; time.Since(begin) < time.Second; n++ {
		block[0] = sha256.Sum256(block)[0]
	}
	return float64(n) / time.Since(begin).Seconds()
}

// percentile of sorted or unsorted values, p from 0 to 100 (nearest rank).
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[min(len(sorted)-1, (len(sorted)*p+99)/100-1+b2i(p == 0))]
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
