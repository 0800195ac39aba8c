package datastore_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kedge-io/kedge/pkg/datastore"
)

var crashRounds = flag.Int("crash-rounds", 8, "how often TestCrash kills the datastore")

const (
	// crashDir tells a re-executed test binary to be the datastore that is killed.
	crashDir = "KEDGE_TEST_CRASH_DIR"
	// crashWrites makes each writer of it stop after so many writes, and the process then end as if killed.
	crashWrites = "KEDGE_TEST_CRASH_WRITES"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		os.Exit(crashChild(dir))
	}
	os.Exit(m.Run())
}

const (
	crashWriters = 16
	crashKeys    = 5 // of each writer
)

// crashChild serves a datastore, writes to it and says on its standard output what was acknowledged,
// until it is killed.
func crashChild(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d, err := datastore.New(datastore.Config{
		Dir: dir, Socket: filepath.Join(dir, "s"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for d.Ready(ctx) != nil {
		select {
		case err := <-done:
			fmt.Fprintln(os.Stderr, err)
			return 1
		case <-time.After(2 * time.Millisecond):
		}
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{d.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(os.Stdout, format+"\n", args...)
	}
	limit, _ := strconv.Atoi(os.Getenv(crashWrites)) // 0: no limit
	var writers sync.WaitGroup
	for w := range crashWriters {
		writers.Go(func() { crashWriter(ctx, c, w, limit, say) })
	}
	go func() {
		writers.Wait()
		os.Exit(0)
	}()
	go func() { // compaction runs into the crash too
		for ctx.Err() == nil {
			if resp, err := c.Get(ctx, "/"); err == nil {
				_, _ = c.Compact(ctx, resp.Header.Revision-100)
			}
		}
	}()
	<-done
	return 0
}

// crashWriter puts and deletes its keys; a value is the number of the write.
func crashWriter(ctx context.Context, c *clientv3.Client, w, limit int, say func(string, ...any)) {
	padding := strings.Repeat("x", 1000)
	first := time.Now().UnixNano()
	for n := first; ctx.Err() == nil && (limit == 0 || n < first+int64(limit)); n++ {
		key := fmt.Sprintf("/crash/%d/%d", w, n%crashKeys)
		if n%11 == 0 {
			say("try %s 0", key)
			if resp, err := c.Delete(ctx, key); err == nil {
				say("ok %s 0 %d", key, resp.Header.Revision)
			}
			continue
		}
		say("try %s %d", key, n)
		if resp, err := c.Put(ctx, key, fmt.Sprintf("%d %s", n, padding)); err == nil {
			say("ok %s %d %d", key, n, resp.Header.Revision)
		}
	}
}

// known is what the test knows of one key: the last acknowledged write and the one that was under way.
type known struct{ acknowledged, tried string }

// TestCrash kills a datastore under load at random moments and checks each time that it starts again,
// that every acknowledged write is there and that revisions never go back.
func TestCrash(t *testing.T) {
	dir := filepath.Join(socketDir(t), "d")
	keys := map[string]known{}
	var revision int64
	for round := range *crashRounds {
		revision = max(revision, killAtRandom(t, dir, keys))
		checkCrashed(t, dir, keys, revision)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d rounds, revision %d", *crashRounds, revision)
}

// killAtRandom runs the child for up to 800 ms after its first write and returns the last revision seen.
func killAtRandom(t *testing.T, dir string, keys map[string]known) int64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var logs strings.Builder
	cmd.Stderr = &logs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var killer *time.Timer
	var last int64
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		if killer == nil {
			after := time.Duration(rand.Int64N(int64(800 * time.Millisecond)))
			killer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		last = max(last, learn(t, keys, scanner.Text()))
	}
	if err := scanner.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if killer == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the datastore was not killed but ended: %v\n%s", err, logs.String())
	}
	return last
}

// learn takes in a line of the child and returns the revision it acknowledges, or 0.
func learn(t *testing.T, keys map[string]known, line string) int64 {
	t.Helper()
	f := strings.Fields(line)
	if f[0] == "try" {
		keys[f[1]] = known{acknowledged: keys[f[1]].acknowledged, tried: f[2]}
		return 0
	}
	keys[f[1]] = known{acknowledged: f[2], tried: f[2]}
	rev, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	return rev
}

// checkCrashed opens what the child left.
func checkCrashed(t *testing.T, dir string, keys map[string]known, revision int64) {
	t.Helper()
	d := start(t, datastore.Config{Dir: dir})
	c := newClient(t, d.Endpoint())
	resp, err := c.Get(t.Context(), "/crash/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Revision < revision {
		t.Errorf("revision %d, but %d was acknowledged", resp.Header.Revision, revision)
	}
	found := map[string]string{}
	for _, kv := range resp.Kvs {
		number, _, _ := strings.Cut(string(kv.Value), " ")
		found[string(kv.Key)] = number
	}
	for key, k := range keys {
		got := found[key]
		if got == "" {
			got = "0"
		}
		if want := k.acknowledged; got != k.tried && got != want && !(got == "0" && want == "") {
			t.Errorf("%s is %s: acknowledged %q, tried %q", key, got, k.acknowledged, k.tried)
		}
		keys[key] = known{acknowledged: got, tried: got}
	}
	c.Close()
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
