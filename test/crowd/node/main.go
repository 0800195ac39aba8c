// Command node is many nodes in one process, for scenarios and the bench: each has an identity of its own from joining, a tunnel, and the link,
// the store and the watches of a node API, over real TLS; none has a kubelet or containers. It answers at http://127.0.0.1:7000/?service=NAME
// how many nodes are current, which is to know the Service of that name.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// report is what crowd answers.
type report struct {
	Joined, Up, Current, Tunnels    int
	Lists                           int64
	Sent, Received, Connections     int64
	Services, Watches, WatchesFresh int
}

func main() {
	server := flag.String("server", "", "URL of the server")
	token := flag.String("token", "", "its token")
	dir := flag.String("dir", "/var/lib/crowd", "where the nodes keep what they know")
	prefix := flag.String("prefix", "crowd", "begin of their names")
	count := flag.Int("nodes", 10, "how many nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *server, *token, *dir, *prefix, *count); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

// run has all nodes join, a few at a time, and then be nodes until ctx is done.
func run(ctx context.Context, server, token, dir, prefix string, count int) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var mu sync.Mutex
	var nodes []*node
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var all report
		for _, n := range nodes {
			n.add(&all, r.URL.Query().Get("service"))
		}
		_ = json.NewEncoder(w).Encode(all) // the client may be gone
	})
	failed := make(chan error, count+1)
	s := &http.Server{Addr: "127.0.0.1:7000", ReadHeaderTimeout: time.Minute}
	go func() { failed <- s.ListenAndServe() }()
	defer s.Close()
	slots := make(chan struct{}, 4)
	var work sync.WaitGroup
	for i := range count {
		work.Go(func() {
			slots <- struct{}{}
			name := prefix + "-" + strconv.Itoa(i)
			n, err := join(ctx, server, token, filepath.Join(dir, name), name, "127.0.0.1:"+strconv.Itoa(20000+i), net.IPv4(10, 99, byte(i>>8), byte(i)), log)
			<-slots
			if err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
				return
			}
			mu.Lock()
			nodes = append(nodes, n)
			mu.Unlock()
			n.run(ctx)
		})
	}
	select {
	case <-ctx.Done():
		work.Wait()
		return nil
	case err := <-failed:
		return err
	}
}
