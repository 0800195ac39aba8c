package main

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var values []time.Duration
	for i := 100; i >= 1; i-- {
		values = append(values, time.Duration(i))
	}
	for p, want := range map[int]time.Duration{0: 1, 1: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(values, p); got != want {
			t.Errorf("percentile %d of 1…100 is %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
	if got := percentile(values[:1], 99); got != 100 {
		t.Errorf("of one: %d", got)
	}
}

func TestReadingProc(t *testing.T) {
	m := kilobytes("5561 rollup\nPss:     1024 kB\nPss_Anon:  512 kB\nname: x\n")
	if m["Pss"] != 1024 || m["Pss_Anon"] != 512 || len(m) != 2 {
		t.Errorf("got %v", m)
	}
	if got := gauge("# HELP a b\nheap_bytes 2.5e+06\nheap_bytes_total 3\n", "heap_bytes"); got != 2.5e6 {
		t.Errorf("got %v", got)
	}
}
