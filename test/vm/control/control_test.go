package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// newPair serves one end of a pipe in this process and returns a client on the other.
func newPair(t *testing.T) *Client {
	t.Helper()
	guest, host := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(guest) }()
	c := NewClient(host)
	t.Cleanup(func() {
		_ = c.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c
}

func TestExec(t *testing.T) {
	c := newPair(t)
	var out, errOut bytes.Buffer
	err := c.Exec(t.Context(), Command{
		Argv: []string{"sh", "-c", "cat; echo $WHO >&2; exit 3"}, Env: []string{"WHO=me"}, Dir: "/",
		Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errOut,
	})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "in" || errOut.String() != "me\n" {
		t.Fatalf("err %v, stdout %q, stderr %q", err, out.String(), errOut.String())
	}
	if err := c.Exec(t.Context(), Command{Argv: []string{"/no/such/program"}, Dir: "/"}); err == nil || errors.As(err, &exit) && exit.Code != 3 {
		t.Fatalf("a missing program: %v", err)
	}
}

// TestExecStreams sees a line while the program still runs, and the end of the context ends the program and its children.
func TestExecStreams(t *testing.T) {
	c := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	fifo := filepath.Join(t.TempDir(), "alive")
	go func() {
		done <- c.Exec(ctx, Command{Argv: []string{"sh", "-c", "mkfifo $F; exec 3<>$F; sleep 1000 & echo $!; wait"}, Env: []string{"F=" + fifo}, Dir: "/", Stdout: w})
	}()
	buf := make([]byte, 32)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	child := strings.TrimSpace(string(buf[:n]))
	if _, err := os.Stat("/proc/" + child); err != nil {
		t.Fatalf("child %q does not run: %v", child, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("want the context's error, got %v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for alive(child) {
		if time.Now().After(deadline) {
			t.Fatalf("child %s still runs", child)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// alive is false for a process that is gone or only waits to be reaped.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// TestFiles moves more than the flow control windows in both directions at once with other calls.
func TestFiles(t *testing.T) {
	c := newPair(t)
	path := filepath.Join(t.TempDir(), "a", "b")
	data := make([]byte, 40<<20)
	_, _ = rand.Read(data)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			if _, err := c.Ping(t.Context()); err != nil {
				t.Errorf("ping beside a copy: %v", err)
			}
		}
	})
	if err := c.Put(t.Context(), path, 0o751, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := c.Get(t.Context(), path, &back); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o751 || !bytes.Equal(back.Bytes(), data) {
		t.Fatalf("mode %v, %d bytes of %d came back, %v", st.Mode(), back.Len(), len(data), err)
	}
	if err := c.Get(t.Context(), path+"-none", io.Discard); err == nil {
		t.Error("reading a missing file succeeded")
	}
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}()
		}
	}()
	c := newPair(t)
	conn, err := c.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != text {
			t.Fatalf("echo of %q: %q, %v", text, buf, err)
		}
	}
	_ = conn.Close()
	_ = l.Close()
	if _, err := c.Dial(t.Context(), "tcp", l.Addr().String()); err == nil {
		t.Error("a connection to a closed port succeeded")
	}
}

// TestBroken returns an error from calls on a channel that broke, at once.
func TestBroken(t *testing.T) {
	guest, host := net.Pipe()
	c := NewClient(host)
	done := make(chan error, 1)
	go func() {
		_, err := c.Ping(t.Context())
		done <- err
	}()
	_ = guest.Close()
	if err := <-done; err == nil {
		t.Error("a ping over a broken channel succeeded")
	}
	if _, err := c.Ping(t.Context()); err == nil {
		t.Error("a second ping succeeded")
	}
}
