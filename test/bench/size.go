package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
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
