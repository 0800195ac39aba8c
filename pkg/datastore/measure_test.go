package datastore_test

import (
	"flag"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/measure"
)

var measureFor = flag.Duration("measure", 0, "run the load measurement, each part for this long, and print its table")

func TestMeasure(t *testing.T) {
	cfg := measure.Config{Duration: *measureFor}
	if *measureFor == 0 { // a short run shows that the program works; its numbers mean nothing
		cfg = measure.Config{Duration: 50 * time.Millisecond, List: 200, Watchers: 5, Clients: []int{1, 4}}
	}
	dir := t.TempDir()
	var walHigh, database int64
	cfg.Between = func() {
		walHigh = max(walHigh, sizeOf(filepath.Join(dir, "state.db-wal")))
		database = sizeOf(filepath.Join(dir, "state.db"))
	}
	cfg.Endpoint = start(t, datastore.Config{Dir: dir}).Endpoint()
	before := cpuTime(t)
	results, err := measure.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure.Print(t.Output(), results); err != nil {
		t.Fatal(err)
	}
	t.Logf("CPU %v, client included; database %d MiB, log at most %d KiB", cpuTime(t)-before, database>>20, walHigh>>10)
	if walHigh > 64<<20 {
		t.Errorf("the write-ahead log grew to %d bytes", walHigh)
	}
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
