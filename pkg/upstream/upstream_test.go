package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kedge-io/kedge/test/output"
)

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not reached: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func open(t *testing.T, path string, given ...string) *List {
	t.Helper()
	l, err := OpenList(path, given)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestListRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent", "servers.json")
	l := open(t, path, "https://a:6443/")
	changed := l.Changed()
	if err := l.Found([]string{"https://c:1", "https://a:6443", "https://b:1", "https://c:1"}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got, want := fmt.Sprint(open(t, path).All()), "[https://a:6443 https://b:1 https://c:1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// An operator says once where the server is now.
	open(t, path, "https://new:6443")
	if got, want := fmt.Sprint(open(t, path).All()), "[https://new:6443 https://a:6443 https://b:1 https://c:1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	l = open(t, path)
	if err := l.Found(nil); err != nil || len(l.All()) != 4 {
		t.Errorf("an empty cluster was believed: %v, %v", l.All(), err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenList(path, nil); err == nil || !strings.Contains(err.Error(), "--server") {
		t.Error(err)
	}
	open(t, path, "https://a:6443")
}

func TestURLs(t *testing.T) {
	https, other, no, port := "https", "metrics", false, int32(6443)
	got := urls([]*discoveryv1.EndpointSlice{
		{Ports: []discoveryv1.EndpointPort{{Name: &https, Port: &port}, {Name: &other, Port: &port}, {Name: &https}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1", "10.0.0.2"}}, {Addresses: []string{"10.0.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}}},
		{Ports: []discoveryv1.EndpointPort{{Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}}}},
	})
	if want := "[https://10.0.0.1:6443 https://10.0.0.2:6443 https://[fd00::1]:6443]"; fmt.Sprint(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// named is a server that answers with its name and then echoes.
type named struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func serve(t *testing.T, name, address string) *named {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	n := &named{Listener: l}
	t.Cleanup(n.kill)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			n.conns = append(n.conns, c)
			n.mu.Unlock()
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, name); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	return n
}

func (n *named) url() string { return "https://" + n.Addr().String() }

func (n *named) kill() {
	_ = n.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}

// balance starts a balancer and returns its address and log.
func balance(t *testing.T, list *List) (string, *output.Buffer) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	log := &output.Buffer{}
	b, err := NewBalancer(BalancerConfig{Listen: address, Servers: list, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	await(t, "listening", func() bool { return b.Ready(ctx) == nil })
	return address, log
}

// greet connects and returns the connection and who answered; "" when nobody did.
func greet(t *testing.T, address string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	name := make([]byte, 3)
	n, _ := io.ReadFull(c, name)
	return c, string(name[:n])
}

func TestBalancerStaysUntilAServerFails(t *testing.T) {
	one, two := serve(t, "one", "127.0.0.1:0"), serve(t, "two", "127.0.0.1:0")
	address, log := balance(t, open(t, filepath.Join(t.TempDir(), "servers.json"), one.url(), two.url()))
	first, name := greet(t, address)
	for range 5 {
		if _, again := greet(t, address); name != "one" || again != "one" {
			t.Fatalf("answers of %s and %s", name, again)
		}
	}
	one.kill()
	if _, err := io.ReadAll(first); err != nil {
		t.Logf("old connection: %v", err)
	}
	if _, name := greet(t, address); name != "two" {
		t.Errorf("answer of %q", name)
	}
	one = serve(t, "one", one.Addr().String())
	if _, name := greet(t, address); name != "two" {
		t.Errorf("moved without need to %q", name)
	}
	two.kill()
	if _, name := greet(t, address); name != "one" {
		t.Errorf("answer of %q", name)
	}
	one.kill()
	for range 3 {
		if _, name := greet(t, address); name != "" {
			t.Errorf("answer of %q", name)
		}
	}
	if n := strings.Count(log.String(), "no server can be reached"); n != 1 {
		t.Errorf("said %d times that no server can be reached", n)
	}
	serve(t, "two", two.Addr().String())
	await(t, "answer again", func() bool {
		_, name := greet(t, address)
		return name == "two"
	})
	if !strings.Contains(log.String(), "can be reached again") {
		t.Error(log.String())
	}
}

func TestConnectionsToALostServerAreClosed(t *testing.T) {
	near, far := net.Pipe()
	other, rest := net.Pipe()
	for _, c := range []net.Conn{near, far, other, rest} {
		t.Cleanup(func() { _ = c.Close() })
	}
	b := &Balancer{open: map[net.Conn]string{far: "https://a:6443", rest: "https://b:6443"}, failed: map[string]time.Time{}}
	b.cfg.Servers, b.current = open(t, filepath.Join(t.TempDir(), "servers.json"), "https://a:6443", "https://b:6443"), "https://a:6443"
	b.Drop("https://a:6443")
	if got := b.order(time.Now()); got[0] != "https://b:6443" {
		t.Errorf("the lost server is tried first: %v", got)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection to the lost server: %v", err)
	}
	go func() { _, _ = rest.Write([]byte("x")) }()
	if _, err := other.Read(make([]byte, 1)); err != nil {
		t.Errorf("the connection to another server: %v", err)
	}
}

func TestBalancerPassesAllBytes(t *testing.T) {
	one := serve(t, "one", "127.0.0.1:0")
	address, _ := balance(t, open(t, filepath.Join(t.TempDir(), "servers.json"), one.url()))
	c, _ := greet(t, address)
	sent := bytes.Repeat([]byte("0123456789"), 500_000)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite() // the echo ends when it has everything
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
}

func TestServerThatLeavesIsLeft(t *testing.T) {
	one, two := serve(t, "one", "127.0.0.1:0"), serve(t, "two", "127.0.0.1:0")
	list := open(t, filepath.Join(t.TempDir(), "servers.json"))
	if err := list.Found([]string{one.url()}); err != nil {
		t.Fatal(err)
	}
	address, _ := balance(t, list)
	c, name := greet(t, address)
	if name != "one" {
		t.Fatalf("answer of %q", name)
	}
	if err := list.Found([]string{two.url()}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still connected")
	}
	if _, name := greet(t, address); name != "two" {
		t.Errorf("answer of %q", name)
	}
}
