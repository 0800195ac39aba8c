package memory

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

func TestDecide(t *testing.T) {
	idle := cost{cores: 0.002, share: 0.3, collections: 9}
	for _, c := range []struct {
		spent   cost
		percent int
		want    int
	}{
		{idle, 200, 30}, {idle, 30, 30}, // idle goes to the floor at once and stays
		{cost{}, 100, 30},               // nothing was collected
		{cost{0.02, 0.01, 9}, 100, 66},  // cheap for what was done
		{cost{0.03, 0.03, 9}, 100, 100}, // between the bounds nothing moves
		{cost{0.10, 0.10, 2}, 30, 60},   // expensive goes up at once
		{cost{0.50, 0.50, 9}, 150, 200}, // and stops at the ceiling
		{cost{0.03, 0.20, 1}, 30, 30},   // one collection alone says little
		{cost{0.10, 0.20, 1}, 30, 60},   // unless it is that of a very large heap
	} {
		if got := decide(c.spent, c.percent, 30, 200); got != c.want {
			t.Errorf("decide(%+v, %d) = %d, want %d", c.spent, c.percent, got, c.want)
		}
	}
}

func TestLargeHeapsGrowLess(t *testing.T) {
	for live, want := range map[uint64]int{0: 30, 100 << 20: 30, 160 << 20: 30, 240 << 20: 20, 320 << 20: 15, 4 << 30: 15} {
		if got := lowest(30, live); got != want {
			t.Errorf("%d MiB: %d, want %d", live>>20, got, want)
		}
	}
	if got := lowest(10, 4<<30); got != 10 {
		t.Errorf("what is configured became %d", got)
	}
}

func TestCostBetweenReadings(t *testing.T) {
	if got, want := (usage{2, 20, 7}).since(usage{1, 10, 4}, 20*time.Second), (cost{0.05, 0.1, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (usage{1, 10, 4}).since(usage{1, 10, 4}, time.Second); got != (cost{}) {
		t.Errorf("no collection gave %+v", got)
	}
}

func TestReadOnlyRegions(t *testing.T) {
	maps := `00400000-00500000 r-xp 00000000 fe:00 1 /usr/bin/kedge
00500000-00600000 r--p 00100000 fe:00 1 /usr/bin/kedge
00600000-00700000 rw-p 00200000 fe:00 1 /usr/bin/kedge
00700000-00800000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r-xp 00000000 fe:00 2 /usr/lib/other
`
	want := []region{{0x400000, 0x500000}, {0x500000, 0x600000}}
	if got := readOnlyRegions(maps, "/usr/bin/kedge"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := readOnlyRegions(maps, "/usr/bin/ked"); got != nil {
		t.Errorf("a prefix of the name matched: %x", got)
	}
}

func TestDroppedPagesComeBack(t *testing.T) {
	freed, err := dropProgramPages()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if freed == 0 || int64(freed) > info.Size()+1<<20 {
		t.Errorf("dropped %d bytes of a program of %d", freed, info.Size())
	}
	if decide(cost{}, 30, 30, 200) != 30 { // code that was dropped runs again
		t.Error("the program is damaged")
	}
}

func TestRunStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := New(Config{Log: slog.New(slog.DiscardHandler)}).Run(ctx); err != nil {
			t.Error(err)
		}
	})
}
