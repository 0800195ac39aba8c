package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/tunnel"
)

func TestStreamReachesTheKubelet(t *testing.T) {
	s := newSite(t)
	s.join("a", kubelet(t, echo), nil)
	s.awaitConnected("a")
	exchange(t, s.dial("a"), "hello")
	exchange(t, s.dial("a"), strings.Repeat("long", 100_000))
	var wg sync.WaitGroup
	for i := range 50 {
		c := s.dial("a")
		wg.Go(func() { exchange(t, c, fmt.Sprint("stream ", i)) })
	}
	wg.Wait()
}

func TestEndOfStreamArrivesAfterItsData(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("log line\n", 200_000)
	s.join("a", kubelet(t, func(c net.Conn) { _, _ = io.WriteString(c, text) }), nil)
	s.awaitConnected("a")
	got, err := io.ReadAll(s.dial("a"))
	if err != nil || string(got) != text {
		t.Fatalf("got %d of %d bytes, %v", len(got), len(text), err)
	}
}

func TestFailedDialsSayWhy(t *testing.T) {
	s := newSite(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	s.join("a", closed.Addr().String(), nil)
	s.awaitConnected("a")
	if got := s.dialError("a"); !strings.Contains(got, "node a: reach its kubelet") || !strings.Contains(got, "connection refused") {
		t.Error(got)
	}
	if got := s.dialError("b"); !strings.Contains(got, "node b is not connected to this server") {
		t.Error(got)
	}
	if _, err := s.server.DialNode(context.Background(), "a", "127.0.0.1:22"); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Error(err)
	}
	if !s.server.Connected("a") {
		t.Error("a refusal ended the session")
	}
}

func TestOtherAddressesAreDialedDirectly(t *testing.T) {
	s := newSite(t)
	c, err := s.server.Dial(context.Background(), "tcp", kubelet(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "direct")
}

func TestOnlyNodesMayConnect(t *testing.T) {
	s := newSite(t)
	for name, pair := range map[string]certs.KeyPair{"nobody": {}, "administrator": s.certs.Admin, "API server": s.certs.KubeletClient} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.clientTLS(pair)}}
		resp, err := client.Get(s.url() + tunnel.Path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

func TestNodeIsWhoItsCertificateSays(t *testing.T) {
	s := newSite(t)
	s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) {
		// A server's address of "b" and headers of any kind change nothing.
		c.Servers = &servers{urls: []string{s.url() + "/?node=b"}, changed: make(chan struct{})}
	})
	s.awaitConnected("a")
	if s.server.Connected("b") {
		t.Error("node a is connected as b")
	}
	if got := s.dialError("b"); !strings.Contains(got, "not connected") {
		t.Error(got)
	}
}

func TestNodeComesBackAfterACut(t *testing.T) {
	s := newSite(t)
	l := newLink(t, s.url())
	s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) {
		c.Servers = &servers{urls: []string{l.address}, changed: make(chan struct{})}
	})
	s.awaitConnected("a")
	for range 3 {
		c := s.dial("a")
		exchange(t, c, "before")
		l.cut()
		if _, err := io.ReadAll(c); err == nil {
			t.Error("the stream ended as if it were complete")
		}
		await(t, "a new stream", func() bool {
			c, err := s.server.Dial(context.Background(), "tcp", "a:10250")
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
}

func TestSilentLinkIsNoticedByBothEnds(t *testing.T) {
	s := newSite(t)
	l := newLink(t, s.url())
	a, _ := s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) {
		c.Servers = &servers{urls: []string{l.address}, changed: make(chan struct{})}
		c.Ping, c.Answer = time.Second, 200*time.Millisecond
	})
	s.awaitConnected("a")
	l.up.Store(false)
	await(t, "the node gives up", func() bool { return len(a.Connected()) == 0 })
	await(t, "the server gives up", func() bool { return !s.server.Connected("a") })
	l.up.Store(true)
	l.cut()
	s.awaitConnected("a")
	exchange(t, s.dial("a"), "again")
}

func TestSlowStreamLeavesTheOthersAlone(t *testing.T) {
	s := newSite(t)
	s.join("a", kubelet(t, func(c net.Conn) {
		first := make([]byte, 1)
		if _, err := c.Read(first); err != nil {
			return
		}
		if first[0] != 'F' {
			_, _ = c.Write(first)
			echo(c)
		}
		for flood := make([]byte, 32<<10); ; {
			if _, err := c.Write(flood); err != nil {
				return
			}
		}
	}), nil)
	s.awaitConnected("a")
	slow := s.dial("a")
	if _, err := slow.Write([]byte("F")); err != nil {
		t.Fatal(err)
	}
	quick := s.dial("a")
	exchange(t, quick, "x")
	worst := time.Duration(0)
	for range 200 {
		begin := time.Now()
		exchange(t, quick, "are you there")
		worst = max(worst, time.Since(begin))
	}
	t.Logf("worst round trip beside a stream that nobody reads: %s", worst)
	if worst > 2*time.Second {
		t.Errorf("worst round trip %s", worst)
	}
	if _, err := io.CopyN(io.Discard, slow, 20<<20); err != nil {
		t.Errorf("the slow stream did not go on: %v", err)
	}
}

func TestNothingIsLeftOfStreamsThatWerePausedInACut(t *testing.T) {
	s := newSite(t)
	l := newLink(t, s.url())
	flood := make([]byte, 32<<10)
	s.join("a", kubelet(t, func(c net.Conn) {
		for {
			if _, err := c.Write(flood); err != nil {
				return
			}
		}
	}), func(c *tunnel.AgentConfig) {
		c.Servers = &servers{urls: []string{l.address}, changed: make(chan struct{})}
	})
	s.awaitConnected("a")
	before := runtime.NumGoroutine()
	for range 5 {
		s.dial("a")
	}
	await(t, "data on all streams", func() bool { return l.bytes.Load() > 5<<20 })
	l.awaitQuiet()
	l.cut()
	s.awaitConnected("a")
	await(t, "goroutines ended", func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestServersComeAndGo(t *testing.T) {
	one, two := newSite(t), newSite(t)
	list := &servers{urls: []string{one.url()}, changed: make(chan struct{})}
	a, _ := one.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) { c.Servers = list })
	await(t, "connected", func() bool { return len(a.Connected()) == 1 && one.server.Connected("a") })
	l := newLink(t, one.url())
	list.set(one.url(), l.address, two.url()) // the same server by another way, and a server of another cluster
	exchange(t, one.dial("a"), "still there")
	list.set(l.address)
	await(t, "connected by the other way", func() bool { return fmt.Sprint(a.Connected()) == fmt.Sprint([]string{l.address}) })
	if two.server.Connected("a") {
		t.Error("a server of another cluster took the node")
	}
}

func TestServerThatIsReachedIsNotTriedAgain(t *testing.T) {
	s := newSite(t)
	public, inner := newLink(t, s.url()), newLink(t, s.url())
	list := &servers{urls: []string{public.address}, changed: make(chan struct{})}
	a, _ := s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) { c.Servers = list })
	await(t, "connected", func() bool { return len(a.Connected()) == 1 && s.server.Connected("a") })
	list.set(public.address, s.url(), inner.address)
	await(t, "the unknown way was tried", func() bool { return inner.dials.Load() == 1 })
	exchange(t, s.dial("a"), "undisturbed")
	if public.dials.Load() != 1 {
		t.Errorf("the session was opened %d times", public.dials.Load())
	}
	if inner.dials.Load() != 1 {
		t.Errorf("the other way was tried %d times", inner.dials.Load())
	}
	public.cut()
	await(t, "another way at once", func() bool { return s.server.Connected("a") })
}

func TestServerHearsThatANodeIsWell(t *testing.T) {
	s := newSite(t)
	var well atomic.Bool
	s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) {
		c.Ping = time.Second
		c.Well = well.Load
	})
	s.awaitConnected("a")
	s.join("b", kubelet(t, echo), func(c *tunnel.AgentConfig) { c.Ping = time.Second })
	await(t, "a ping of b", func() bool { return s.beats("b") > 0 })
	if n := s.beats("a"); n != 0 {
		t.Errorf("%d pings of a node that is not well", n)
	}
	well.Store(true)
	await(t, "a ping of a", func() bool { return s.beats("a") > 0 })
	if from, ok := s.server.From("a"); !ok || !from.IsLoopback() {
		t.Errorf("the session of a comes from %s, %v", from, ok)
	}
	if _, ok := s.server.From("c"); ok {
		t.Error("a node without a session comes from somewhere")
	}
}

func TestIdleTunnelIsQuiet(t *testing.T) {
	s := newSite(t)
	l := newLink(t, s.url())
	s.join("a", kubelet(t, echo), func(c *tunnel.AgentConfig) {
		c.Servers = &servers{urls: []string{l.address}, changed: make(chan struct{})}
		c.Ping = time.Second
	})
	s.awaitConnected("a")
	l.awaitQuiet()
	begin, before := time.Now(), l.bytes.Load()
	await(t, "time for several pings, and two of the multiplexer", func() bool { return time.Since(begin) > 11*time.Second })
	used := l.bytes.Load() - before
	exchanges := used / 53 // 6+1 bytes of ping, 2 of pong, 22 of TLS each
	t.Logf("%d bytes of TLS in %s: %d exchanges", used, time.Since(begin).Round(time.Second), exchanges)
	if exchanges < 10 || exchanges > 13 {
		t.Errorf("%d exchanges", exchanges)
	}
}
