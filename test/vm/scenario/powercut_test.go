package scenario

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/vm"
	"github.com/kedge-io/kedge/test/vm/control"
	"github.com/kedge-io/kedge/test/vm/disk"
)

// TestPowerCut shows that the lab's power cuts are honest, without kedge: no synced record is ever lost, whatever happens to the rest, and
// writes that were not flushed really are lost.
func TestPowerCut(t *testing.T) {
	vm.Require(t)
	g := vm.New(t, vm.Config{Name: "disk", MemMiB: 1024, Files: map[string]string{"/usr/local/bin/appender": buildProgram(t, "./appender")}})
	t.Logf("first boot: %v", g.Boot().Round(100*time.Millisecond))
	for round, loss := range []disk.Loss{disk.LoseAll, disk.LoseSome} {
		acked := loadUntilCut(t, g, loss, "synced", 300+100*round)
		t.Logf("round %d: boot after the cut: %v", round, g.Boot().Round(100*time.Millisecond))
		found := readRecords(t, g, "/root/synced", 8)
		t.Logf("round %d: last acknowledged record %d, found %d", round, acked, len(found)-1)
		if len(found) <= acked {
			t.Fatalf("acknowledged records %d to %d are lost", len(found), acked)
		}
		for i, n := range found[:acked+1] {
			if n != uint64(i) {
				t.Fatalf("record %d reads %d", i, n)
			}
		}
		if out := g.MustRun("dmesg --level=emerg,alert,crit,err | grep -i -e ext4 -e vda || true"); out != "" {
			t.Errorf("the file system is damaged: %s", out)
		}
	}
	acked := loadUntilCut(t, g, disk.LoseAll, "direct", 200)
	g.Boot()
	lost := 0
	for n, found := range readRecords(t, g, "/root/direct", 4096) {
		if n >= 1 && n <= acked && found != uint64(n) {
			lost++
		}
	}
	t.Logf("of %d writes that were answered but not flushed, %d are lost", acked, lost)
	if lost == 0 {
		t.Error("no unflushed write was lost: the power cut is not one")
	}
}

// loadUntilCut runs the appender, cuts the power once it has acknowledged the number of records, and returns the last acknowledged one.
func loadUntilCut(t *testing.T, g *vm.Guest, loss disk.Loss, mode string, records int) int {
	t.Helper()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := g.Exec(t.Context(), control.Command{Argv: []string{"appender", mode, "/root/" + mode}, Stdout: w, Stderr: w})
		_ = w.CloseWithError(err)
		ended <- err
	}()
	last := -1
	lines := bufio.NewScanner(r)
	for count := 0; lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("appender: %s", lines.Text())
		}
		last = n
		if count++; count == records {
			// The scan goes on: acknowledgements that are under way count.
			g.PowerCut(loss)
		}
	}
	if err := <-ended; err == nil {
		t.Fatalf("appender ended by itself after record %d", last)
	}
	return last
}

// readRecords copies the file out and returns the number at the start of each record.
func readRecords(t *testing.T, g *vm.Guest, path string, size int) []uint64 {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	g.CopyOut(path, out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var found []uint64
	for ; len(b) >= size; b = b[size:] {
		found = append(found, binary.BigEndian.Uint64(b))
	}
	return found
}

// buildProgram compiles a program of this repository for the guest.
func buildProgram(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), strings.TrimLeft(filepath.Base(pkg), "."))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	return out
}

// await asks again until ok or the time is over.
func await(t *testing.T, what string, limit time.Duration, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-time.After(time.Second):
		}
	}
}
