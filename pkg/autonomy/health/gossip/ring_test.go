package gossip

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
)

// member starts a ring of a node on an address of its own of this machine.
func member(t *testing.T, key []byte, name string, place note.Place) *ring {
	t.Helper()
	cfg := Config{NodeName: name, Address: netip.MustParseAddr("127.77.0." + name), Key: key, Log: slog.New(slog.DiscardHandler)}
	r, err := startRing(t.Context(), cfg, place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.list.Shutdown() })
	go r.keep(t.Context())
	return r
}

func secret(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return key
}

// await waits until a member reports what is wanted.
func await(t *testing.T, r *ring, want string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = r.report().String(); got == want {
			return
		}
	}
	t.Fatalf("%s reports %s, want %s", r.self, got, want)
}

func TestRing(t *testing.T) {
	key, place := secret(t), note.Place{Unit: "u", Port: 26447, Probe: 200, Seeds: []string{"127.77.0.1"}}
	one, two, three := member(t, key, "1", place), member(t, key, "2", place), member(t, key, "3", place)
	stranger := member(t, secret(t), "4", place)
	elsewhere := place
	elsewhere.Unit = "other"
	other := member(t, key, "5", elsewhere)
	await(t, one, `{"alive":["2","3"]}`)
	await(t, three, `{"alive":["1","2"]}`)
	for _, r := range []*ring{stranger, other} {
		if alive, missing := r.counts(); alive+missing != 0 {
			t.Errorf("%s met %d", r.self, alive)
		}
	}

	begin := time.Now()
	if err := two.list.Shutdown(); err != nil { // no goodbye, and the machine refuses connections
		t.Fatal(err)
	}
	await(t, one, `{"alive":["3"],"mute":["2"]}`)
	await(t, three, `{"alive":["1"],"mute":["2"]}`)
	t.Logf("found after %s", time.Since(begin).Round(time.Millisecond))
	again := member(t, key, "2", place)
	await(t, one, `{"alive":["2","3"]}`)
	if err := again.stop(); err != nil {
		t.Fatal(err)
	}
	await(t, one, `{"alive":["3"],"mute":["2"]}`)

	if other := place; !one.move(other) {
		t.Error("the same place is another")
	}
	moved := place
	moved.Seeds = []string{"127.77.0.3"}
	if !one.move(moved) || one.move(elsewhere) {
		t.Error("what may change is the seeds")
	}
}

func TestTransportIsBounded(t *testing.T) {
	r := member(t, secret(t), "9", note.Place{Port: 26448, Probe: 200, Near: false, Seeds: []string{"127.77.0.9"}})
	address := "127.77.0.9:26448"
	for _, size := range []int{1, 100, maxPacket, 3 * maxPacket} {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	var open []net.Conn
	for range 2 * maxStreams {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		open = append(open, c)
	}
	refused := 0
	for _, c := range open {
		if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			refused++
		}
	}
	if refused < maxStreams {
		t.Errorf("%d of %d strangers were refused", refused, len(open))
	}
	if alive, missing := r.counts(); alive+missing != 0 {
		t.Error("strangers are members")
	}
}

func TestSmallFootprint(t *testing.T) {
	place := note.Place{Port: 26449, Probe: 1000, Seeds: []string{"127.77.0.11"}}
	measure := func() (heap, routines int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
	}
	key := secret(t)
	member(t, key, "11", place)
	heap, routines := measure()
	r := member(t, key, "12", place)
	await(t, r, `{"alive":["11"]}`)
	more, and := measure()
	t.Logf("a member takes %d KiB and %d goroutines", (more-heap)>>10, and-routines)
	if more-heap > 2<<20 || and-routines > 40 {
		t.Error("too much")
	}
}

func TestNewChecks(t *testing.T) {
	good := Config{Kubeconfig: filepath.Join(t.TempDir(), "none"), NodeName: "n", Address: netip.MustParseAddr("127.0.0.1"), Key: make([]byte, 32),
		StateFile: "x", Log: slog.New(slog.DiscardHandler)}
	for name, change := range map[string]func(*Config){
		"no name": func(c *Config) { c.NodeName = "" }, "no address": func(c *Config) { c.Address = netip.Addr{} },
		"short key": func(c *Config) { c.Key = c.Key[:16] }, "no file": func(c *Config) { c.StateFile = "" }, "no kubeconfig": func(*Config) {},
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if net, err := nearby(netip.MustParseAddr("127.0.0.1")); err != nil || net.String() != "127.0.0.0/8" {
		t.Errorf("%v %v", net, err)
	}
	var _ memberlist.Transport = (*transport)(nil)
}
