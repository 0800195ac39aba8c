package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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
		for _, form := range []string{"", ".zst", ".gz"} {
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
