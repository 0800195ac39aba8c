package join

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab/slowlink"
	"github.com/kedge-io/kedge/test/vm/control"
)

func TestExecBesideALargeStreamOnASlowLink(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.f1.Start()
	s.s1.AwaitNodes("f1")
	pod := s.pod("f1")
	s.farm.Uplink().Slow(slowlink.Quality{Delay: 50 * time.Millisecond, Rate: 2_000_000})
	measure := func(what string) {
		t.Helper()
		var worst, sum time.Duration
		const times = 5
		for range times {
			begin := time.Now()
			s.s1.Kubectl("exec", pod, "--", "true")
			took := time.Since(begin)
			worst, sum = max(worst, took), sum+took
		}
		t.Logf("exec on a line of 2 Mbit/s with 100 ms, %s: mean %s, worst %s", what, (sum / times).Round(time.Millisecond), worst.Round(time.Millisecond))
		if worst > 20*time.Second {
			t.Errorf("worst %s", worst)
		}
	}
	measure("alone")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	reader, writer := io.Pipe()
	go func() {
		defer close(done)
		_ = s.s1.RunStreams(ctx, control.Command{Argv: []string{"/opt/kedge/bin/kedge", "kubectl", "exec", pod, "--", "cat", "/dev/zero"}, Stdout: writer})
		_ = writer.Close()
	}()
	count := make(chan int64, 1)
	if _, err := io.CopyN(io.Discard, reader, 1<<20); err != nil {
		t.Fatal(err)
	}
	go func() {
		n, _ := io.Copy(io.Discard, reader)
		count <- n
	}()
	begin := time.Now()
	measure("beside a stream that fills it")
	took := time.Since(begin)
	cancel()
	<-done
	t.Logf("the stream moved %.1f Mbit/s meanwhile", float64(<-count)*8/1e6/took.Seconds())
}
